{{/*
How things are called. The names are those of the ingress-nginx chart, so that an upgrade in place changes the same objects.
*/}}

{{/*
The value of app.kubernetes.io/name, which selectors contain, so that it can't change afterwards. A release that is called after
Fairway is new; any other one may have been made by the ingress-nginx chart, and keeps its name.
*/}}
{{- define "fairway.name" -}}
{{- $own := ternary "fairway" "ingress-nginx" (contains "fairway" .Release.Name) -}}
{{- default $own .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "fairway.fullname" -}}
{{- $name := include "fairway.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "fairway.controller.fullname" -}}
{{- printf "%s-%s" (include "fairway.fullname" .) .Values.controller.name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What controllers have in mode split: a Deployment, a Service, a Secret, a ConfigMap. */}}
{{- define "fairway.control.fullname" -}}
{{- printf "%s-control" (include "fairway.fullname" . | trunc 55 | trimSuffix "-") -}}
{{- end -}}

{{/* The ServiceAccount of proxies in mode split, which has no rights. */}}
{{- define "fairway.proxyAccountName" -}}
{{- printf "%s-proxy" (include "fairway.fullname" . | trunc 57 | trimSuffix "-") -}}
{{- end -}}

{{/* The component that the pods of the controller are labelled with: in mode split they are not those that serve. */}}
{{- define "fairway.control.component" -}}
{{- ternary "control" "controller" (eq .Values.controller.mode "split") -}}
{{- end -}}

{{/* The Secret, Service, webhook and policy that check Ingresses as they are stored. */}}
{{- define "fairway.validation.fullname" -}}
{{- printf "%s-validation" (include "fairway.fullname" . | trunc 52 | trimSuffix "-") -}}
{{- end -}}

{{- define "fairway.readinessGate.fullname" -}}
{{- printf "%s-readiness-gate" (include "fairway.fullname" . | trunc 48 | trimSuffix "-") -}}
{{- end -}}

{{- define "fairway.defaultBackend.fullname" -}}
{{- printf "%s-%s" (include "fairway.fullname" .) .Values.defaultBackend.name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "fairway.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "fairway.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "fairway.serviceAccountName" -}}
{{- default (ternary (include "fairway.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "fairway.defaultBackend.serviceAccountName" -}}
{{- $account := .Values.defaultBackend.serviceAccount -}}
{{- default (ternary (printf "%s-backend" (include "fairway.fullname" .)) "default-backend" $account.create) $account.name -}}
{{- end -}}

{{/* The names under which the templates in users' values (affinity, config and so on) know some of these. */}}
{{- define "ingress-nginx.name" -}}{{- include "fairway.name" . -}}{{- end -}}
{{- define "ingress-nginx.chart" -}}{{- include "fairway.chart" . -}}{{- end -}}
{{- define "ingress-nginx.fullname" -}}{{- include "fairway.fullname" . -}}{{- end -}}
{{- define "ingress-nginx.namespace" -}}{{- include "fairway.namespace" . -}}{{- end -}}
{{- define "ingress-nginx.controller.fullname" -}}{{- include "fairway.controller.fullname" . -}}{{- end -}}
{{- define "ingress-nginx.defaultBackend.fullname" -}}{{- include "fairway.defaultBackend.fullname" . -}}{{- end -}}
{{- define "ingress-nginx.serviceAccountName" -}}{{- include "fairway.serviceAccountName" . -}}{{- end -}}
{{- define "ingress-nginx.labels" -}}{{- include "fairway.labels" (dict "root" .) -}}{{- end -}}
{{- define "ingress-nginx.selectorLabels" -}}{{- include "fairway.selector" (dict "root" .) -}}{{- end -}}
