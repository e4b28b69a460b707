{{/*
What the user has set and doesn't get, for the NOTES: one line each.
*/}}

{{/* A flag's or key's `value` as text. Go takes several words for the two sides of a `switch`, and nothing for true. */}}
{{- define "fairway.settingText" -}}
{{- $text := "" -}}
{{- if kindIs "slice" .value -}}{{- $text = join "," .value -}}
{{- else if not (kindIs "invalid" .value) -}}{{- $text = include "fairway.text" .value -}}
{{- end -}}
{{- if not .switch -}}{{- $text -}}
{{- else if has $text (list "" "1" "t" "T" "true" "True" "TRUE") -}}true
{{- else if has $text (list "0" "f" "F" "false" "False" "FALSE") -}}false
{{- else -}}{{- $text -}}
{{- end -}}
{{- end -}}

{{/* Ports of the container and of Services on which nothing listens, as a list of lines. Other containers of the pod may listen too. */}}
{{- define "fairway.deafPorts" -}}
{{- $controller := .Values.controller -}}
{{- $flags := include "fairway.flags" . | fromYaml -}}
{{- $lines := list -}}
{{- $heard := list "http" "https" (index $flags "http-port" | default "80") (index $flags "https-port" | default "443") (include "fairway.healthPort" .) -}}
{{- if $controller.metrics.enabled -}}{{- $heard = append $heard $controller.metrics.portName -}}{{- end -}}
{{- range $port, $_ := .Values.tcp -}}
{{- $heard = concat $heard (list $port (include "fairway.streamPort" (dict "root" $ "port" $port "protocol" "tcp"))) -}}
{{- end -}}
{{- range $container := concat ($controller.extraContainers | default list) ($controller.extraInitContainers | default list) -}}
{{- range $port := ternary $container dict (kindIs "map" $container) | dig "ports" list -}}
{{- $heard = concat $heard (list (toString $port.name) (include "fairway.text" $port.containerPort)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $port := $controller.containerPort -}}
{{- if and $port (not (has $name $heard)) -}}
{{- $lines = append $lines (printf "controller.containerPort.%s: Fairway listens on the ports http and https only, so nothing answers on port %s." $name (include "fairway.text" $port)) -}}
{{- end -}}
{{- end -}}
{{- $services := list (dict "path" "controller.service.targetPorts" "ports" $controller.service.targetPorts "on" $controller.service.external.enabled) -}}
{{- $services = append $services (dict "path" "controller.service.internal.targetPorts" "ports" $controller.service.internal.targetPorts "on" (and $controller.service.internal.enabled $controller.service.internal.annotations)) -}}
{{- range $service := $services -}}
{{- range $name, $enabled := dict "http" $controller.service.enableHttp "https" $controller.service.enableHttps -}}
{{- with index ($service.ports | default dict) $name -}}
{{- $target := include "fairway.text" . -}}
{{- if and $controller.service.enabled $service.on $enabled (not (has $target $heard)) -}}
{{- $lines = append $lines (printf "%s.%s: nothing listens on the port %s, so connections to the Service's port %s are refused. Only http and https are served." $service.path $name $target $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $lines -}}
{{- end -}}

{{/* The paths in `values` that aren't in the tree `known`, as a list. The empty map in it isn't looked into. */}}
{{- define "fairway.unknownNames" -}}
{{- $names := list -}}
{{- range $key, $value := .values -}}
{{- $path := ternary $key (printf "%s.%s" $.path $key) (empty $.path) -}}
{{- if kindIs "invalid" $value -}}
{{- else if not (hasKey $.known $key) -}}{{- $names = append $names $path -}}
{{- else if and (index $.known $key) (kindIs "map" $value) -}}
{{- $names = concat $names (include "fairway.unknownNames" (dict "values" $value "known" (index $.known $key) "path" $path) | fromJsonArray) -}}
{{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- define "fairway.warnings" -}}
{{- $controller := .Values.controller -}}
{{- $lines := list -}}
{{- $unhonoured := .Files.Get "files/not-honoured.json" | fromJson -}}
{{- range $path := keys $unhonoured | sortAlpha -}}
{{- $entry := index $unhonoured $path -}}
{{- $value := $.Values -}}
{{- $set := true -}}
{{- range $key := $entry.keys -}}
{{- $set = and $set (kindIs "map" $value) (hasKey (ternary $value dict (kindIs "map" $value)) $key) -}}
{{- $value = ternary (index (ternary $value dict (kindIs "map" $value)) $key) nil $set -}}
{{- end -}}
{{- $vain := false -}}
{{- if hasKey $entry "text" -}}
{{- $vain = and $set (ne (include "fairway.settingText" (dict "value" $value "switch" $entry.switch)) $entry.text) -}}
{{- if and (has "config" $entry.keys) (has $value (list nil "")) -}}{{- $vain = false -}}{{- end -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $vain = ne (toJson $value) (toJson $entry.default) -}}
{{- end -}}
{{- if $vain -}}{{- $lines = append $lines (printf "%s: %s" $path $entry.note) -}}{{- end -}}
{{- end -}}
{{- $names := .Files.Get "files/names.json" | fromJson -}}
{{- range $path := include "fairway.unknownNames" (dict "values" (.Values | toJson | fromJson) "known" ($names.known | default dict) "path" "") | fromJsonArray -}}
{{- $word := splitList "." $path | last | lower | replace "-" "" | replace "_" "" -}}
{{- $meant := "" -}}
{{- with index ($names.likely | default dict) $word -}}{{- $meant = printf " Did you mean %s?" . -}}{{- end -}}
{{- $lines = append $lines (printf "%s: neither this chart nor that of ingress-nginx reads it, so it has no effect.%s" $path $meant) -}}
{{- end -}}
{{- $class := $controller.ingressClassResource -}}
{{- if and $class.enabled (ne $class.name "nginx") (eq $class.controllerValue "k8s.io/ingress-nginx") -}}
{{- $lines = append $lines (printf "controller.ingressClassResource.name: %s has the controllerValue of the class nginx. Beside another controller with that value, ingress-nginx or Fairway, both serve both classes and fight over the status of their Ingresses. A class of its own needs a controllerValue of its own (such as k8s.io/%s), and controller.ingressClass for the annotation." $class.name $class.name) -}}
{{- end -}}
{{- if and .Values.rbac.create .Values.rbac.scope -}}
{{- $lines = append $lines (printf "rbac.scope: IngressClasses can't be read without a right in the cluster, so the field ingressClassName is not understood: only Ingresses with the annotation kubernetes.io/ingress.class: %s are served." ($controller.ingressClass | default "nginx")) -}}
{{- end -}}
{{- if and .Values.rbac.create .Values.rbac.scope (include "fairway.duties" . | fromYaml).nodes -}}
{{- $lines = append $lines "controller.publishService.enabled: without the address of a Service the addresses of nodes are written to the status of Ingresses, and with rbac.scope they can't be read: Ingresses get no address. Turn it on (it needs controller.service.enabled), name addresses in controller.extraArgs.publish-status-address, or set controller.extraArgs.update-status to false." -}}
{{- end -}}
{{- $lines = concat $lines (include "fairway.deafPorts" . | fromJsonArray) -}}
{{- $wait := "Fairway drains by itself when it is asked to end; controller.extraArgs.shutdown-grace-period says how long it goes on accepting before that (10 s)." -}}
{{- with include "fairway.sleeps" . -}}
{{- $wait = printf "In place of the sleep set controller.extraArgs.shutdown-grace-period: %s. That is how long Fairway goes on accepting when it is asked to end, before it drains by itself." . -}}
{{- end -}}
{{- $preStop := ($controller.lifecycle | default dict).preStop -}}
{{- if include "fairway.waitShutdown" . -}}
{{- $lines = append $lines (printf "controller.lifecycle.preStop: /wait-shutdown is a program of ingress-nginx, the hook is left out. %s" $wait) -}}
{{- else if include "fairway.missingProgram" (dict "root" . "handler" $preStop) -}}
{{- $lines = append $lines (printf "controller.lifecycle.preStop: %s isn't in the image, which holds nothing but /fairway, so the hook fails and nothing is waited for. %s" (first $preStop.exec.command) $wait) -}}
{{- end -}}
{{- if and $controller.service.enabled $controller.service.internal.enabled (not $controller.service.internal.annotations) -}}
{{- $lines = append $lines "controller.service.internal.enabled: there is no internal Service without controller.service.internal.annotations, as with the ingress-nginx chart." -}}
{{- end -}}
{{- if and $controller.autoscaling.enabled $controller.keda.enabled -}}
{{- $lines = append $lines "controller.autoscaling.enabled and controller.keda.enabled exclude each other: nothing scales." -}}
{{- end -}}
{{- if and (eq $controller.kind "Both") (or $controller.autoscaling.enabled $controller.keda.enabled) -}}
{{- $lines = append $lines "controller.kind: with Both a scaler that goes by CPU or memory counts the pods of the DaemonSet as well, which have the same labels, and so makes more replicas than are needed. Install the DaemonSet and the Deployment as two releases, or set a low maxReplicas." -}}
{{- end -}}
{{- if and (eq $controller.mode "pair") $controller.shareProcessNamespace -}}
{{- $lines = append $lines "controller.shareProcessNamespace: with mode pair the proxy then sees the process of the controller, which belongs to the same user, and its token. Leave it off." -}}
{{- end -}}
{{- if include "fairway.controller.uncountable" . -}}
{{- $lines = append $lines (printf "controller.%s: with controller.kind Both there is no PodDisruptionBudget for it. It would select the DaemonSet's pods as well, of which Kubernetes can't tell how many may be missing, and then keep all pods from being evicted. Only a number as controller.minAvailable works." (ternary "maxUnavailable" "minAvailable" (hasKey $controller "maxUnavailable"))) -}}
{{- end -}}
{{- range $lines }}
- {{ . }}
{{- end }}
{{- end -}}
