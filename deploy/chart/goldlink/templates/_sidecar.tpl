{{- /* A sidecar of the CSI project: (list ROOT NAME ARGUMENT…). */ -}}
{{- define "goldlink.sidecar" -}}
{{- $root := first . }}
{{- $name := index . 1 }}
{{- $sidecar := index $root.Values.sidecars $name }}
- name: {{ $name }}
  image: {{ $sidecar.image }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --leader-election
    - --leader-election-namespace={{ $root.Release.Namespace }}
    # Longer than a call of the controller waits for its background work (50 s).
    - --timeout=60s
    - --v=2
    {{- range (concat (slice . 2) $sidecar.extraArgs) }}
    - {{ . }}
    {{- end }}
  securityContext: {{- include "goldlink.restricted" $root | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  resources: {{- toYaml $root.Values.controller.sidecarResources | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
    - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}

{{- /* Binds the role of a sidecar to the controller's service account: (list ROOT NAME). */ -}}
{{- define "goldlink.binding" -}}
{{- $root := first . }}
{{- $name := printf "%s-%s" (include "goldlink.name" $root) (index . 1) }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- include "goldlink.labels" $root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "goldlink.name" $root }}-controller, namespace: {{ $root.Release.Namespace }}}
{{- end }}
