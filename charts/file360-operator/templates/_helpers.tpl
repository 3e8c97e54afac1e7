{{- define "file360-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Names of 40 characters leave room for the longest suffix. */}}
{{- define "file360-operator.fullname" -}}
{{- $name := include "file360-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "file360-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "file360-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The chart's own labels win, so that no value can break the selectors. */}}
{{- define "file360-operator.labels" -}}
{{- $own := include "file360-operator.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- merge $own .Values.commonLabels | toYaml -}}
{{- end -}}

{{- define "file360-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "file360-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "file360-operator.leaseNamespace" -}}
{{- coalesce .Values.leaderElection.namespace .Values.watchNamespace .Release.Namespace -}}
{{- end -}}

{{- define "file360-operator.workerName" -}}
{{- printf "%s-worker" (include "file360-operator.fullname" .) -}}
{{- end -}}

{{/* Another name than the operator's, so that no selector of the one finds pods of the other. */}}
{{- define "file360-operator.workerSelectorLabels" -}}
app.kubernetes.io/name: {{ include "file360-operator.name" . }}-worker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "file360-operator.workerLabels" -}}
{{- merge (include "file360-operator.workerSelectorLabels" . | fromYaml) (include "file360-operator.labels" . | fromYaml) | toYaml -}}
{{- end -}}

{{- define "file360-operator.workerServiceAccountName" -}}
{{- if .Values.worker.serviceAccount.create -}}
{{- default (include "file360-operator.workerName" .) .Values.worker.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.worker.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Where the queue is: the same for the leader and its workers. */}}
{{- define "file360-operator.queueEnv" -}}
{{- with .Values.queue }}
- name: FILE360_QUEUE
  value: {{ .url | quote }}
- name: FILE360_QUEUE_KEY_FILE
  value: /etc/file360-operator/queue/key
{{- with .name }}
- name: FILE360_QUEUE_NAME
  value: {{ . | quote }}
{{- end }}
{{- if eq .login "Credentials" }}
- name: FILE360_QUEUE_CREDENTIALS_FILE
  value: /etc/file360-operator/queue/credentials
{{- else if eq .login "Token" }}
- name: FILE360_QUEUE_TOKEN_FILE
  value: /etc/file360-operator/queue/token
{{- else if eq .login "Password" }}
- name: FILE360_QUEUE_USER
  value: {{ .user | quote }}
- name: FILE360_QUEUE_PASSWORD_FILE
  value: /etc/file360-operator/queue/password
{{- end }}
{{- if .ca }}
- name: FILE360_QUEUE_CA_FILE
  value: /etc/file360-operator/queue/ca.crt
{{- end }}
{{- if .clientCertificate }}
- name: FILE360_QUEUE_TLS_CERT
  value: /etc/file360-operator/queue/tls.crt
- name: FILE360_QUEUE_TLS_KEY
  value: /etc/file360-operator/queue/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{/* The parts of the queue's Secret that are used. */}}
{{- define "file360-operator.queueVolume" -}}
- name: queue
  secret:
    secretName: {{ .Values.queue.secretName }}
    items:
    {{- $keys := list "key" }}
    {{- if ne .Values.queue.login "None" }}{{ $keys = append $keys (lower .Values.queue.login) }}{{ end }}
    {{- if .Values.queue.ca }}{{ $keys = append $keys "ca.crt" }}{{ end }}
    {{- if .Values.queue.clientCertificate }}{{ $keys = concat $keys (list "tls.crt" "tls.key") }}{{ end }}
    {{- range $keys }}
    - key: {{ . }}
      path: {{ . }}
    {{- end }}
{{- end -}}

{{/* Traffic that leader and workers may begin. */}}
{{- define "file360-operator.egress" -}}
{{- with .Values.networkPolicy -}}
# Names.
- ports:
  {{- range .dns.ports }}
  - port: {{ . }}
    protocol: UDP
  - port: {{ . }}
    protocol: TCP
  {{- end }}
  {{- with .dns.to }}
  to:
  {{- toYaml . | nindent 2 }}
  {{- end }}
# The API server.
- ports:
  {{- range .apiServer.ports }}
  - port: {{ . }}
    protocol: TCP
  {{- end }}
  {{- with .apiServer.to }}
  to:
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if $.Values.queue.url }}
# The queue.
- ports:
  - port: {{ .queue.port }}
    protocol: TCP
  {{- with .queue.to }}
  to:
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .egress }}
# File 360 and what goes with it.
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "file360-operator.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The names that our kinds have in rules, from the operator's own rules: a new kind needs no change here. */}}
{{- define "file360-operator.kinds" -}}
{{- $kinds := list -}}
{{- range .Files.Get "files/manager-rules.yaml" | fromYamlArray -}}
{{- if has "file360.io" .apiGroups -}}
{{- range .resources -}}
{{- if not (contains "/" .) -}}
{{- $kinds = append $kinds . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $kinds | uniq | sortAlpha | toYaml -}}
{{- end -}}

{{/* What single values cannot say. The schema says it, too; this is for those who skip it. */}}
{{- define "file360-operator.validate" -}}
{{- if and .Values.watchNamespace (not .Values.clusterId) -}}
{{- fail "watchNamespace needs clusterId: without cluster-scoped rights the operator cannot find out which cluster it is in. Set clusterId to a name that no other cluster uses in File 360." -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.leaderElection.enabled) -}}
{{- fail "replicas above 1 need leaderElection.enabled: two pods must not work at once." -}}
{{- end -}}
{{- if and .Values.ca.configMap .Values.ca.secret -}}
{{- fail "ca.configMap and ca.secret exclude each other: put all authorities into one bundle." -}}
{{- end -}}
{{- if and (or .Values.inbound.ingress.enabled .Values.inbound.httpRoute.enabled) (not .Values.inbound.enabled) -}}
{{- fail "inbound.ingress and inbound.httpRoute need inbound.enabled: there is nothing that they could lead to." -}}
{{- end -}}
{{- if and .Values.inbound.httpRoute.enabled (not .Values.inbound.httpRoute.parentRefs) -}}
{{- fail "inbound.httpRoute needs parentRefs: the Gateways that it belongs to." -}}
{{- end -}}
{{- if eq (int .Values.inbound.port) (int .Values.metrics.port) -}}
{{- fail "inbound.port and metrics.port are the same." -}}
{{- end -}}
{{- if and .Values.queue.url (not .Values.queue.secretName) -}}
{{- fail "queue.url needs queue.secretName: a Secret with the key that leader and workers sign their messages with." -}}
{{- end -}}
{{- if and (gt (int .Values.worker.replicas) 0) (not .Values.queue.url) -}}
{{- fail "worker.replicas needs queue.url: workers take their work from there." -}}
{{- end -}}
{{- if and (eq .Values.queue.login "Password") (not .Values.queue.user) -}}
{{- fail "queue.login: Password needs queue.user." -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if or (hasPrefix "FILE360_" .name) (eq .name "POD_NAME") -}}
{{- fail (printf "extraEnv: %s belongs to the chart; use the chart's own values, or extraArgs." .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
