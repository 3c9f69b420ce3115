{{- define "goldlink.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "goldlink.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "goldlink.labels" -}}
{{ include "goldlink.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "goldlink.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every container may do unless it says otherwise: nothing. */ -}}
{{- define "goldlink.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "goldlink.socket" -}}
{{ .Values.kubeletDir }}/plugins/{{ .Values.driverName }}/csi.sock
{{- end }}

{{- define "goldlink.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 5
readinessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}

{{- /* Volumes and mounts of the fetcher: secrets, and directories of the node. */ -}}
{{- define "goldlink.fetcherVolumes" -}}
{{- range .Values.fetcher.secrets }}
- name: secret-{{ . }}
  secret: {secretName: {{ . }}}
{{- end }}
{{- range $index, $path := .Values.fetcher.directories }}
- name: directory-{{ $index }}
  hostPath: {path: {{ $path }}, type: Directory}
{{- end }}
{{- end }}

{{- define "goldlink.fetcherMounts" -}}
{{- range .Values.fetcher.secrets }}
- {name: secret-{{ . }}, mountPath: /etc/goldlink/secrets/{{ . }}, readOnly: true}
{{- end }}
{{- range $index, $path := .Values.fetcher.directories }}
- {name: directory-{{ $index }}, mountPath: {{ $path }}, readOnly: true, mountPropagation: HostToContainer}
{{- end }}
{{- end }}

{{- /* A volume with what kubelet would mount into every container of the pod. */ -}}
{{- define "goldlink.token" -}}
- name: token
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
