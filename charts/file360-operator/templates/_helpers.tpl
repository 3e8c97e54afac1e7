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
{{- range .Values.extraEnv -}}
{{- if or (hasPrefix "FILE360_" .name) (eq .name "POD_NAME") -}}
{{- fail (printf "extraEnv: %s belongs to the chart; use the chart's own values, or extraArgs." .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
