{{- /*
Gives the disk directory and what is directly in it to the controller's user: a directory of the host, or an export of NFS,
is root's at first. First the directory itself: a node, which runs as root and may come before, then gives what it makes in
it to the same user (csi/disks/files.py).
*/ -}}
{{- define "goldlink.ownDisks" -}}
{{- $user := .Values.controller.podSecurityContext.runAsUser | int }}
- name: own-disks
  image: {{ include "goldlink.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - sh
    - -ceu
    - |
      [ "$(stat -c %u "$1")" = {{ $user }} ] || chown {{ $user }} "$1"
      find "$1" -mindepth 1 -maxdepth 1 -type d ! -user {{ $user }} -exec chown -h {{ $user }} {} +
    - own-disks
    - /var/lib/goldlink-disks
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    runAsNonRoot: false
    runAsUser: 0
    runAsGroup: 0
    capabilities: {drop: [ALL], add: [CHOWN, DAC_READ_SEARCH]}
  terminationMessagePolicy: FallbackToLogsOnError
  resources: {{- toYaml .Values.controller.resources | nindent 4 }}
  volumeMounts:
    - {name: disks, mountPath: /var/lib/goldlink-disks}
{{- end }}
