{{/*
What the user has set and doesn't get, for the NOTES: one line each.
*/}}

{{- define "fairway.warnings" -}}
{{- $controller := .Values.controller -}}
{{- $lines := list -}}
{{- $unhonoured := .Files.Get "files/not-honoured.json" | fromJson -}}
{{- range $path := keys $unhonoured | sortAlpha -}}
{{- $entry := index $unhonoured $path -}}
{{- $value := $.Values -}}
{{- range $key := $entry.keys -}}
{{- $value = ternary (index (default dict $value) $key) nil (kindIs "map" $value) -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $value)) (ne (toJson $value) (toJson $entry.default)) -}}
{{- $lines = append $lines (printf "%s: %s" $path $entry.note) -}}
{{- end -}}
{{- end -}}
{{- if include "fairway.waitShutdown" . -}}
{{- $lines = append $lines "controller.lifecycle.preStop: /wait-shutdown is a program of ingress-nginx, the hook is left out. Fairway drains by itself when it is asked to end; extraArgs.shutdown-grace-period says how long it goes on accepting before that (10 s)." -}}
{{- end -}}
{{- if and $controller.service.enabled $controller.service.internal.enabled (not $controller.service.internal.annotations) -}}
{{- $lines = append $lines "controller.service.internal.enabled: there is no internal Service without controller.service.internal.annotations, as with the ingress-nginx chart." -}}
{{- end -}}
{{- if and $controller.autoscaling.enabled $controller.keda.enabled -}}
{{- $lines = append $lines "controller.autoscaling.enabled and controller.keda.enabled exclude each other: nothing scales." -}}
{{- end -}}
{{- range $lines }}
- {{ . }}
{{- end }}
{{- end -}}
