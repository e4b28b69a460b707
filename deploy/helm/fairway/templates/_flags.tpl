{{/*
The arguments of the controller. Rights, probes and ports follow from them, so they are worked out in one place.
*/}}

{{- define "fairway.electionId" -}}
{{- default (printf "%s-leader" (include "fairway.fullname" .)) .Values.controller.electionID -}}
{{- end -}}

{{/* The port of health checks and metrics. */}}
{{- define "fairway.healthPort" -}}
{{- $metrics := .Values.controller.metrics -}}
{{- include "fairway.text" (index .Values.controller.extraArgs "healthz-port" | default (ternary $metrics.port 10254 $metrics.enabled)) -}}
{{- end -}}

{{/* The same of a controller that is a process of its own. In one pod with a proxy that has the port already, it takes another one. */}}
{{- define "fairway.controlPort" -}}
{{- $port := include "fairway.text" .Values.controller.control.port -}}
{{- $taken := and (ne .Values.controller.mode "split") (eq $port (include "fairway.healthPort" .)) -}}
{{- ternary (add 10 (int $port) | toString) $port $taken -}}
{{- end -}}

{{/* The name of that port. */}}
{{- define "fairway.controlPortName" -}}
control
{{- end -}}

{{/* The path of health checks. */}}
{{- define "fairway.healthPath" -}}
{{- index .Values.controller.extraArgs "health-check-path" | default .Values.controller.healthCheckPath -}}
{{- end -}}

{{/*
All flags as a map from name to text; an empty text is a flag without value. What extraArgs says counts.

The two grace periods: after the order to stop Fairway goes on accepting for the first one, until load balancers have noticed;
then it drains for up to worker-shutdown-timeout of the ConfigMap (240 s). Together they fit into
terminationGracePeriodSeconds. Nothing has to happen between that and the end of the process.
*/}}
{{- define "fairway.flags" -}}
{{- $controller := .Values.controller -}}
{{- $service := $controller.service -}}
{{- $flags := dict
  "election-id" (include "fairway.electionId" .)
  "controller-class" $controller.ingressClassResource.controllerValue
  "configmap" (printf "%s/%s" (default "$(POD_NAMESPACE)" $controller.configMapNamespace) (include "fairway.controller.fullname" .))
  "shutdown-grace-period" "10"
  "post-shutdown-grace-period" "0" -}}
{{- with $controller.ingressClass -}}{{- $_ := set $flags "ingress-class" . -}}{{- end -}}
{{- if .Values.defaultBackend.enabled -}}
{{- $_ := set $flags "default-backend-service" (printf "$(POD_NAMESPACE)/%s" (include "fairway.defaultBackend.fullname" .)) -}}
{{- end -}}
{{- if and $controller.publishService.enabled $service.enabled (not (hasKey $controller.extraArgs "publish-status-address")) -}}
{{- $path := default (printf "$(POD_NAMESPACE)/%s" (include "fairway.controller.fullname" .)) $controller.publishService.pathOverride -}}
{{- if $service.external.enabled -}}{{- $_ := set $flags "publish-service" $path -}}
{{- else if $service.internal.enabled -}}{{- $_ := set $flags "publish-service" (printf "%s-internal" $path) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "tcp" "udp" -}}
{{- if index $.Values $name -}}
{{- $namespace := default "$(POD_NAMESPACE)" (index $controller $name).configMapNamespace -}}
{{- $_ := set $flags (printf "%s-services-configmap" $name) (printf "%s/%s-%s" $namespace (include "fairway.fullname" $) $name) -}}
{{- end -}}
{{- end -}}
{{- if $controller.scope.enabled -}}{{- $_ := set $flags "watch-namespace" (default "$(POD_NAMESPACE)" $controller.scope.namespace) -}}
{{- else if $controller.scope.namespaceSelector -}}{{- $_ := set $flags "watch-namespace-selector" $controller.scope.namespaceSelector -}}
{{- end -}}
{{- if and $controller.reportNodeInternalIp $controller.hostNetwork -}}{{- $_ := set $flags "report-node-internal-ip-address" "true" -}}{{- end -}}
{{- with $controller.healthCheckHost -}}{{- $_ := set $flags "healthz-host" . -}}{{- end -}}
{{- if ne $controller.healthCheckPath "/healthz" -}}{{- $_ := set $flags "health-check-path" $controller.healthCheckPath -}}{{- end -}}
{{- if ne (include "fairway.healthPort" .) "10254" -}}{{- $_ := set $flags "healthz-port" (include "fairway.healthPort" .) -}}{{- end -}}
{{- range $name, $usual := dict "http" 80 "https" 443 -}}
{{- $port := index $controller.containerPort $name -}}
{{- if and $port (ne (int $port) $usual) -}}{{- $_ := set $flags (printf "%s-port" $name) (include "fairway.text" $port) -}}{{- end -}}
{{- end -}}
{{- if $controller.validatingWebhook.enabled -}}
{{- $_ := set $flags "validating-webhook" (printf ":%s" (include "fairway.text" $controller.validatingWebhook.port)) -}}
{{- $_ := set $flags "validating-webhook-certificate" "/etc/fairway/validation/tls.crt" -}}
{{- $_ := set $flags "validating-webhook-key" "/etc/fairway/validation/tls.key" -}}
{{- if $controller.validatingWebhook.clientAuthorityConfigMap -}}{{- $_ := set $flags "validating-webhook-client-authority" "/etc/fairway/validation-client/ca.crt" -}}{{- end -}}
{{- end -}}
{{- if $controller.observed.enabled -}}{{- $_ := set $flags "observed" "" -}}{{- end -}}
{{- if $controller.readinessGate.enabled -}}{{- $_ := set $flags "readiness-gate" "" -}}{{- end -}}
{{- if $controller.gatewayAPI.enabled -}}
{{- $_ := set $flags "gateway-api" "" -}}
{{- if ne $controller.gatewayAPI.controllerName "fairway.dev/gateway" -}}{{- $_ := set $flags "gateway-controller-name" $controller.gatewayAPI.controllerName -}}{{- end -}}
{{- if ne $controller.gatewayAPI.address "shared" -}}{{- $_ := set $flags "gateway-address" $controller.gatewayAPI.address -}}{{- end -}}
{{- end -}}
{{- if $controller.ingressClassByName -}}{{- $_ := set $flags "ingress-class-by-name" "true" -}}{{- end -}}
{{- if $controller.watchIngressWithoutClass -}}{{- $_ := set $flags "watch-ingress-without-class" "true" -}}{{- end -}}
{{- if $controller.enableTopologyAwareRouting -}}{{- $_ := set $flags "enable-topology-aware-routing" "true" -}}{{- end -}}
{{- if $controller.disableLeaderElection -}}{{- $_ := set $flags "disable-leader-election" "true" -}}{{- end -}}
{{- if eq (toString $controller.enableAnnotationValidations) "false" -}}{{- $_ := set $flags "enable-annotation-validation" "false" -}}{{- end -}}
{{- with $controller.maxmindLicenseKey -}}{{- $_ := set $flags "maxmind-license-key" (include "fairway.text" .) -}}{{- end -}}
{{- with $controller.electionTTL -}}{{- $_ := set $flags "election-ttl" . -}}{{- end -}}
{{- range $name, $value := $controller.extraArgs -}}
{{- if kindIs "slice" $value -}}{{- $_ := set $flags $name (join "," $value) -}}
{{- else if kindIs "invalid" $value -}}{{- $_ := set $flags $name "" -}}
{{- else -}}{{- $_ := set $flags $name (include "fairway.text" $value) -}}
{{- end -}}
{{- end -}}
{{- toYaml $flags -}}
{{- end -}}

{{/*
Refuses ports of TCP and UDP services that Fairway has for itself, or that ingress-nginx has: it ignores such entries, and behind the
Service's port would be any process that listens there.
*/}}
{{- define "fairway.checkStreams" -}}
{{- $flags := include "fairway.flags" . | fromYaml -}}
{{- $reserved := dict "http-port" "80" "https-port" "443" "healthz-port" "10254" "ssl-passthrough-proxy-port" "442"
  "default-server-port" "8181" "profiler-port" "10245" "status-port" "10246" "stream-port" "10247" -}}
{{- range $flag, $usual := $reserved -}}
{{- $taken := index $flags $flag | default $usual -}}
{{- range $protocol := list "tcp" "udp" -}}
{{- if hasKey (index $.Values $protocol | default dict) $taken -}}
{{- fail (printf "%s: the port %s is reserved (--%s): choose another one%s" $protocol $taken $flag (ternary (printf ", or move it by controller.containerPort.%s" (trimSuffix "-port" $flag)) "" (has $flag (list "http-port" "https-port")))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The flags by which the two halves find and recognise each other in mode split. Without a Service in front, status has the nodes of
proxies.
*/}}
{{- define "fairway.channelFlags" -}}
{{- $control := .root.Values.controller.control -}}
{{- $port := include "fairway.text" $control.channelPort -}}
{{- $name := include "fairway.control.fullname" .root -}}
{{- $flags := dict -}}
{{- if eq .role "proxy" -}}
{{- $host := $control.clusterIP | default (printf "%s.%s.svc" $name (include "fairway.namespace" .root)) -}}
{{- $_ := set $flags "control-server" (printf (ternary "[%s]:%s" "%s:%s" (contains ":" $host)) $host $port) -}}
{{- else -}}
{{- $_ := set $flags "control-listen" (printf ":%s" $port) -}}
{{- $_ := set $flags "control-secret" $name -}}
{{- $_ := set $flags "control-account" (include "fairway.proxyAccountName" .root) -}}
{{- if (include "fairway.duties" .root | fromYaml).nodes -}}
{{- $labels := list -}}
{{- range $key, $value := include "fairway.selector" (dict "root" .root "component" "controller") | fromYaml -}}{{- $labels = append $labels (printf "%s=%s" $key $value) -}}{{- end -}}
{{- $_ := set $flags "control-pods" (join "," $labels) -}}
{{- end -}}
{{- end -}}
{{- toYaml $flags -}}
{{- end -}}

{{/*
"true" if a new pod takes the sockets of the one before over. Refuses what would keep it from ever being ready, and two pods on a node that
are to stay.
*/}}
{{- define "fairway.handover" -}}
{{- $controller := .Values.controller -}}
{{- if $controller.handover.enabled -}}
{{- if not $controller.hostNetwork -}}{{- fail "controller.handover: sockets of a pod's own network end with it: set controller.hostNetwork" -}}{{- end -}}
{{- if ne $controller.kind "DaemonSet" -}}{{- fail "controller.handover: two pods of a Deployment may stay on one node, where only one of them would serve: choose controller.kind: DaemonSet" -}}{{- end -}}
{{- if eq $controller.mode "pair" -}}{{- fail "controller.handover: the controllers of two pods can't have the same port of the node: choose controller.mode: split or single" -}}{{- end -}}
{{- if and (eq $controller.mode "single") $controller.validatingWebhook.enabled -}}{{- fail "controller.handover: the webhooks of two pods can't have the same port of the node: choose controller.mode: split" -}}{{- end -}}
true
{{- end -}}
{{- end -}}

{{/* Where a Service's port leads: `port`, or its `number` where pods have no names for ports. */}}
{{- define "fairway.targetPort" -}}
{{- ternary .number .port (include "fairway.handover" .root | eq "true") | include "fairway.text" -}}
{{- end -}}

{{/*
The arguments of `role`. All roles take all flags; the healths of two processes in a pod need two ports. Beside a proxy, a controller
that fails must not end its container: the pod would be unready, and its Service would leave the proxy out.
*/}}
{{- define "fairway.args" -}}
{{- $flags := include "fairway.flags" .root | fromYaml -}}
{{- if eq .role "controller" -}}
{{- $_ := set $flags "healthz-port" (include "fairway.controlPort" .root) -}}
{{- if eq .root.Values.controller.mode "pair" -}}{{- $_ := set $flags "restart-on-failure" "" -}}{{- end -}}
{{- end -}}
{{- if eq .root.Values.controller.mode "split" -}}{{- $flags = merge (include "fairway.channelFlags" . | fromYaml) $flags -}}{{- end -}}
{{- if .root.Values.controller.snapshot.keySecret -}}
{{- if eq .role "run" -}}{{- fail "controller.snapshot: only a proxy without the API server starts from a file: choose controller.mode: pair or split" -}}{{- end -}}
{{- if eq .role "proxy" -}}
{{- $_ := set $flags "snapshot-file" "/var/lib/fairway/snapshot/snapshot" -}}
{{- $_ := set $flags "snapshot-key-file" "/var/run/secrets/fairway.dev/snapshot/key" -}}
{{- end -}}
{{- end -}}
{{- if and (ne .role "controller") (include "fairway.handover" .root) (not (hasKey $flags "handover-socket")) -}}
{{- /* A name needs no folder that two pods share. It is one of the node, and may not be long. */ -}}
{{- $name := printf "%s/%s" (include "fairway.namespace" .root) (include "fairway.controller.fullname" .root) -}}
{{- $_ := set $flags "handover-socket" (printf "@fairway-%s" (sha256sum $name | trunc 16)) -}}
{{- end -}}
- {{ .role }}
{{- range $name, $value := $flags }}
- {{ ternary (printf "--%s" $name) (printf "--%s=%s" $name $value) (eq $value "") | quote }}
{{- end }}
{{- end -}}

{{/* "true" if the switch `name` is on, given all `flags` and its `default`. */}}
{{- define "fairway.switch" -}}
{{- $value := ternary (index .flags .name | toString | lower) (toString .default) (hasKey .flags .name) -}}
{{- if has $value (list "" "true" "t" "1") -}}true{{- end -}}
{{- end -}}
