{{/*
Parts that several objects share. Each takes a dictionary, with the chart's own context as `root`.
*/}}

{{/* A number as people write it: Go would print 1000000 as 1e+06. Anything else as it is. */}}
{{- define "fairway.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* A map whose values have to be strings: labels, annotations, data of a ConfigMap. */}}
{{- define "fairway.strings" -}}
{{- $out := dict -}}
{{- range $key, $value := . -}}{{- $_ := set $out $key (include "fairway.text" $value) -}}{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* The non-empty fields `names` of the map `from`, unchanged. */}}
{{- define "fairway.pick" -}}
{{- $out := dict -}}
{{- range $name := .names -}}
{{- $value := index $.from $name -}}
{{- if $value -}}{{- $_ := set $out $name $value -}}{{- end -}}
{{- end -}}
{{- if $out -}}{{- toYaml $out -}}{{- end -}}
{{- end -}}

{{/* The selector for the pods of `component`, or for all of the release. */}}
{{- define "fairway.selector" -}}
app.kubernetes.io/name: {{ include "fairway.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* All labels of an object; `labels` are lists of maps, the later ones win, and none changes a label that selectors use. */}}
{{- define "fairway.labels" -}}
{{- $labels := dict
  "helm.sh/chart" (include "fairway.chart" .root)
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $labels = mergeOverwrite $labels (include "fairway.podLabels" . | fromYaml) -}}
{{- include "fairway.strings" $labels -}}
{{- end -}}

{{/*
The same without what differs between versions: replicas find each other by their labels, also in the middle of an upgrade.
*/}}
{{- define "fairway.podLabels" -}}
{{- $labels := dict "app.kubernetes.io/part-of" (include "fairway.name" .root) -}}
{{- range prepend (.labels | default list) .root.Values.commonLabels -}}
{{- with . -}}{{- $labels = mergeOverwrite $labels (deepCopy .) -}}{{- end -}}
{{- end -}}
{{- include "fairway.strings" (mergeOverwrite $labels (include "fairway.selector" . | fromYaml)) -}}
{{- end -}}

{{/* `clusterWide` objects have no namespace. */}}
{{- define "fairway.metadata" -}}
metadata:
  name: {{ .name }}
  {{- if not .clusterWide }}
  namespace: {{ .namespace | default (include "fairway.namespace" .root) }}
  {{- end }}
  labels: {{- include "fairway.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- include "fairway.strings" . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The same with the labels of the controller's objects. */}}
{{- define "fairway.controller.metadata" -}}
{{- $defaults := dict "component" "controller" "labels" (list .root.Values.controller.labels) "name" (include "fairway.controller.fullname" .root) -}}
{{- include "fairway.metadata" (merge . $defaults) -}}
{{- end -}}

{{- define "fairway.defaultBackend.metadata" -}}
{{- $defaults := dict "component" "default-backend" "labels" (list .root.Values.defaultBackend.labels) "name" (include "fairway.defaultBackend.fullname" .root) -}}
{{- include "fairway.metadata" (merge . $defaults) -}}
{{- end -}}

{{/* [registry/]repository:tag[@digest] */}}
{{- define "fairway.imageName" -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}:{{ .tag }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The container's security context that `image` describes, plus `capabilities`. */}}
{{- define "fairway.securityContext" -}}
runAsNonRoot: {{ .image.runAsNonRoot }}
runAsUser: {{ .image.runAsUser }}
runAsGroup: {{ .image.runAsGroup }}
allowPrivilegeEscalation: {{ .escalation | default .image.allowPrivilegeEscalation }}
readOnlyRootFilesystem: {{ .image.readOnlyRootFilesystem }}
{{- with .image.seccompProfile }}
seccompProfile: {{- toYaml . | nindent 2 }}
{{- end }}
capabilities:
  drop:
    - ALL
  {{- with .capabilities }}
  add: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* A HorizontalPodAutoscaler's spec for the Deployment `name`, from `autoscaling` and more metrics in `template`. */}}
{{- define "fairway.autoscaler" -}}
scaleTargetRef:
  apiVersion: apps/v1
  kind: Deployment
  name: {{ .name }}
minReplicas: {{ .autoscaling.minReplicas }}
maxReplicas: {{ .autoscaling.maxReplicas }}
metrics:
{{- range $resource, $percentage := dict "memory" .autoscaling.targetMemoryUtilizationPercentage "cpu" .autoscaling.targetCPUUtilizationPercentage }}
  {{- with $percentage }}
  - type: Resource
    resource:
      name: {{ $resource }}
      target:
        type: Utilization
        averageUtilization: {{ . }}
  {{- end }}
{{- end }}
{{- with .template }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .autoscaling.behavior }}
behavior: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A PodDisruptionBudget's spec from `from`: one of minAvailable, which has a default, and maxUnavailable. */}}
{{- define "fairway.budget" -}}
selector:
  matchLabels: {{- include "fairway.selector" . | nindent 4 }}
{{- if hasKey .from "maxUnavailable" }}
{{- with .from.maxUnavailable }}
maxUnavailable: {{ . }}
{{- end }}
{{- else }}
{{- with .from.minAvailable }}
minAvailable: {{ . }}
{{- end }}
{{- end }}
{{- with .from.unhealthyPodEvictionPolicy }}
unhealthyPodEvictionPolicy: {{ . }}
{{- end }}
{{- end -}}

{{- define "fairway.defaultBackend.image" -}}
{{- $image := .Values.defaultBackend.image -}}
{{- if $image.repository -}}
{{- include "fairway.imageName" (pick $image "repository" "tag" "digest") -}}
{{- else -}}
{{- $registry := default .Values.global.image.registry $image.registry -}}
{{- include "fairway.imageName" (dict "registry" $registry "repository" $image.image "tag" $image.tag "digest" $image.digest) -}}
{{- end -}}
{{- end -}}
