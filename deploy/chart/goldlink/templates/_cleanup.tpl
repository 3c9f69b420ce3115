{{- define "goldlink.cleanUpContainer" -}}
- name: clean-up
  image: {{ include "goldlink.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [python3, /scripts/clean_up.py, {{ .node.stateDir | quote }}]
  # Other people's files in it need no more than this; it mounts and unmounts nothing.
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    runAsUser: 0
    capabilities: {drop: [ALL], add: [DAC_OVERRIDE, FOWNER]}
  readinessProbe:
    exec: {command: [test, -e, /tmp/clean]}
    periodSeconds: 2
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - {name: kubelet, mountPath: {{ .root.Values.kubeletDir }}, mountPropagation: HostToContainer, readOnly: true}
    - {name: state, mountPath: {{ .node.stateDir }}}
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end }}
