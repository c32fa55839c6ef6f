{{- define "fanfare.name" -}}
{{- if contains "fanfare" .Release.Name }}{{ .Release.Name | trunc 30 | trimSuffix "-" }}{{ else }}{{ printf "%s-fanfare" (.Release.Name | trunc 22 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "fanfare.apiUrl" -}}
http://{{ include "fanfare.name" . }}-api.{{ .Release.Namespace }}.svc:{{ .Values.api.service.port }}
{{- end }}

{{/* What a Deployment finds its pods by. (list root component) */}}
{{- define "fanfare.selector" -}}
app.kubernetes.io/name: fanfare
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "fanfare.labels" -}}
{{ include "fanfare.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{/* (list root repository) */}}
{{- define "fanfare.image" -}}
image: {{ printf "%s:%s" (index . 1) ((index . 0).Values.image.tag | default (index . 0).Chart.AppVersion) | quote }}
imagePullPolicy: {{ (index . 0).Values.image.pullPolicy }}
{{- end }}

{{/* What every pod is like, as in the compose files: an ordinary user, on a file system that is read only. */}}
{{- define "fanfare.pod" -}}
serviceAccountName: {{ .Values.serviceAccountName }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fanfare.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* (list root component): pods of one kind on different machines, where there are several */}}
{{- define "fanfare.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "fanfare.selector" . | nindent 8 }}
{{- end }}

{{/* All models that nodes of this chart serve: they can be asked for, and told of, before one of them is there. */}}
{{- define "fanfare.models" -}}
{{- $models := list -}}
{{- range $name, $set := .Values.nodes }}{{ if $set }}{{ $models = concat $models ($set.models | default list) }}{{ end }}{{ end -}}
{{- $models | uniq | sortAlpha | join "," -}}
{{- end }}

{{- define "fanfare.secretVariable" -}}
- name: {{ index . 1 }}
  valueFrom: {secretKeyRef: {name: {{ index . 0 }}, key: {{ index . 1 }}}}
{{- end }}

{{/* Helm reads numbers as floats, and would write large ones with an exponent. */}}
{{- define "fanfare.settings" -}}
{{- range $name, $value := . }}
{{- if and (kindIs "float64" $value) (eq $value (floor $value)) }}{{ $value = int64 $value }}{{ end }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* Of API, worker and migration. */}}
{{- define "fanfare.environment" -}}
envFrom:
  - secretRef: {name: {{ .Values.existingSecret }}}
env:
  {{- range list "FANFARE_DATABASE_URL" "FANFARE_BROKER_URL" "FANFARE_SECRET_KEY" }}
  {{- include "fanfare.secretVariable" (list $.Values.existingSecret .) | nindent 2 }}
  {{- end }}
  - name: FANFARE_HOME
    value: /data
  - name: FANFARE_STORAGE_URL
    value: {{ .Values.storageUrl | quote }}
  - name: FANFARE_PUBLIC_URL
    value: {{ .Values.publicUrl | default (include "fanfare.apiUrl" .) | quote }}
  - name: FANFARE_NODE_URL
    value: {{ .Values.nodeUrl | default (include "fanfare.apiUrl" .) | quote }}
  {{- with include "fanfare.models" . }}
  - name: FANFARE_MODELS
    value: {{ . | quote }}
  {{- end }}
  {{- include "fanfare.settings" .Values.settings | nindent 2 }}
{{- end }}

{{- define "fanfare.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A file that is touched as long as the process works and reaches the broker. (seconds) */}}
{{- define "fanfare.alive" -}}
exec:
  command: [sh, -c, 'test -n "$(find /tmp/alive -newermt "-{{ . }} seconds")"']
periodSeconds: 15
timeoutSeconds: 5
{{- end }}

{{/* A set of nodes: its own values over those of all. (list root name), as JSON */}}
{{- define "fanfare.set" -}}
{{- $root := index . 0 -}}
{{- mergeOverwrite (deepCopy $root.Values.nodeDefaults) (deepCopy (index $root.Values.nodes (index . 1))) | toJson -}}
{{- end }}
