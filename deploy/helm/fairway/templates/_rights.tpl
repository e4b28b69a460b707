{{/*
What the controller may do at the API server: what it does, and nothing else. It depends on the flags.
*/}}

{{/* A rule; `names` restricts it to objects of these names. */}}
{{- define "fairway.rule" -}}
- apiGroups: [{{ .group | quote }}]
  resources: {{ toJson .resources }}
  {{- with .names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: {{ toJson .verbs }}
{{- end -}}

{{/* Whether status is written, who may write it, and where the addresses in it come from: a map of switches. */}}
{{- define "fairway.duties" -}}
{{- $flags := include "fairway.flags" . | fromYaml -}}
{{- $status := include "fairway.switch" (dict "flags" $flags "name" "update-status" "default" true) -}}
{{- $alone := include "fairway.switch" (dict "flags" $flags "name" "disable-leader-election" "default" false) -}}
{{- $clears := include "fairway.switch" (dict "flags" $flags "name" "update-status-on-shutdown" "default" true) -}}
{{- $zone := include "fairway.switch" (dict "flags" $flags "name" "enable-topology-aware-routing" "default" false) -}}
{{- $elsewhere := or (hasKey $flags "publish-service") (hasKey $flags "publish-status-address") -}}
{{- dict
  "status" (not (empty $status))
  "lease" (and (not (empty $status)) (empty $alone))
  "nodes" (and (not (empty $status)) (not $elsewhere))
  "pods" (and (not (empty $status)) (or (not (empty $clears)) (not $elsewhere)))
  "zone" (not (empty $zone))
  "clears" (and (not (empty $status)) (not (empty $clears)))
  "gateways" (not (empty (include "fairway.switch" (dict "flags" $flags "name" "gateway-api" "default" false))))
  "gate" (and (not (empty $status)) (not (empty (include "fairway.switch" (dict "flags" $flags "name" "readiness-gate" "default" false)))))
  "observed" (and (not (empty $status)) (not (empty (include "fairway.switch" (dict "flags" $flags "name" "observed" "default" false)))))
  "peers" (and (not (empty $status)) (not (and (empty (include "fairway.switch" (dict "flags" $flags "name" "readiness-gate" "default" false))) (empty (include "fairway.switch" (dict "flags" $flags "name" "observed" "default" false))))))
  "addresses" (has (index $flags "gateway-address" | default "shared" | toString) (list "asked" "own"))
  | toYaml -}}
{{- end -}}

{{/*
What is read, and said, in every namespace that is served. An Ingress is written to by patching its status; that is done under
the condition of its version.
*/}}
{{- define "fairway.rules.served" -}}
{{- $duties := include "fairway.duties" . | fromYaml -}}
{{- $read := list "list" "watch" -}}
{{ include "fairway.rule" (dict "group" "" "resources" (list "configmaps" "secrets" "services") "verbs" $read) }}
{{ include "fairway.rule" (dict "group" "discovery.k8s.io" "resources" (list "endpointslices") "verbs" $read) }}
{{ include "fairway.rule" (dict "group" "networking.k8s.io" "resources" (list "ingresses") "verbs" $read) }}
{{- if $duties.status }}
{{ include "fairway.rule" (dict "group" "networking.k8s.io" "resources" (list "ingresses/status") "verbs" (list "patch")) }}
{{- end }}
{{- if $duties.gateways }}
{{- $routes := list "httproutes" "grpcroutes" "tlsroutes" "tcproutes" "udproutes" }}
{{ include "fairway.rule" (dict "group" "gateway.networking.k8s.io" "resources" (concat (list "gateways" "listenersets" "backendtlspolicies") $routes (list "referencegrants")) "verbs" $read) }}
{{ include "fairway.rule" (dict "group" "fairway.dev" "resources" (list "routepolicies") "verbs" $read) }}
{{- if $duties.addresses }}
{{ include "fairway.rule" (dict "group" "fairway.dev" "resources" (list "gatewayparameters") "verbs" $read) }}
{{- end }}
{{- /* The experimental channel of the Gateway API. */}}
{{ include "fairway.rule" (dict "group" "gateway.networking.x-k8s.io" "resources" (list "xbackends" "xbackendtrafficpolicies" "xtelemetrypolicies") "verbs" $read) }}
{{- if $duties.status }}
{{ include "fairway.rule" (dict "group" "gateway.networking.x-k8s.io" "resources" (list "xbackends/status" "xbackendtrafficpolicies/status" "xtelemetrypolicies/status") "verbs" (list "patch")) }}
{{ include "fairway.rule" (dict "group" "fairway.dev" "resources" (list "routepolicies/status") "verbs" (list "patch")) }}
{{- $written := list "gateways/status" "listenersets/status" "backendtlspolicies/status" }}
{{- range $routes }}{{- $written = append $written (printf "%s/status" .) }}{{- end }}
{{ include "fairway.rule" (dict "group" "gateway.networking.k8s.io" "resources" $written "verbs" (list "patch")) }}
{{- if $duties.observed }}
{{- /* The annotation that says who has observed a route: the status of an object of a CRD takes no annotation. */}}
{{ include "fairway.rule" (dict "group" "gateway.networking.k8s.io" "resources" $routes "verbs" (list "patch")) }}
{{- end }}
{{- if $duties.addresses }}
{{- /* The Services of Gateways that have an address of their own, and what they lead to; and those for the pods of XBackends. */}}
{{- $make := list "create" "patch" "delete" }}
{{ include "fairway.rule" (dict "group" "" "resources" (list "services") "verbs" $make) }}
{{ include "fairway.rule" (dict "group" "discovery.k8s.io" "resources" (list "endpointslices") "verbs" $make) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $duties.gate }}
{{- /* The pods that wait for the proxies, and the condition that lets them be ready. */}}
{{ include "fairway.rule" (dict "group" "" "resources" (list "pods") "verbs" $read) }}
{{ include "fairway.rule" (dict "group" "" "resources" (list "pods/status") "verbs" (list "patch")) }}
{{- end }}
{{ include "fairway.rule" (dict "group" "" "resources" (list "events") "verbs" (list "create")) }}
{{- end -}}

{{/* Rights about the controller itself, in its own namespace. */}}
{{- define "fairway.rules.own" -}}
{{- $duties := include "fairway.duties" . | fromYaml -}}
{{- if $duties.pods }}
{{ include "fairway.rule" (dict "group" "" "resources" (list "pods") "verbs" (list "get" "list")) }}
{{- else if or $duties.zone $duties.peers }}
{{ include "fairway.rule" (dict "group" "" "resources" (list "pods") "verbs" (list "get")) }}
{{- end }}
{{- if $duties.clears }}
{{- /* Whether another replica is to come when one ends. */}}
{{- $split := eq .Values.controller.mode "split" }}
{{- $kinds := ternary (list "deployments" "daemonsets") (list (printf "%ss" (lower .Values.controller.kind))) (eq .Values.controller.kind "Both") }}
{{- if $split }}{{- $kinds = list "deployments" }}{{- end }}
{{- $workload := ternary (include "fairway.control.fullname" .) (include "fairway.controller.fullname" .) $split }}
{{ include "fairway.rule" (dict "group" "apps" "resources" $kinds "names" (list $workload) "verbs" (list "get")) }}
{{- end }}
{{- if $duties.lease }}
{{- $flags := include "fairway.flags" . | fromYaml }}
{{ include "fairway.rule" (dict "group" "coordination.k8s.io" "resources" (list "leases") "verbs" (list "create")) }}
{{ include "fairway.rule" (dict "group" "coordination.k8s.io" "resources" (list "leases") "names" (list (index $flags "election-id")) "verbs" (list "get" "update")) }}
{{- end }}
{{- if $duties.peers }}
{{- /* Each controller has a Lease named for its pod, in which the others read what its proxies know. */}}
{{- if not $duties.lease }}
{{ include "fairway.rule" (dict "group" "coordination.k8s.io" "resources" (list "leases") "verbs" (list "create")) }}
{{- end }}
{{ include "fairway.rule" (dict "group" "coordination.k8s.io" "resources" (list "leases") "verbs" (list "list" "watch" "patch")) }}
{{- end }}
{{- if eq .Values.controller.mode "split" }}
{{- /* The authority for the certificates of controllers and proxies, and its own certificate, which proxies mount. */}}
{{- $both := list "secrets" "configmaps" }}
{{ include "fairway.rule" (dict "group" "" "resources" $both "verbs" (list "create")) }}
{{ include "fairway.rule" (dict "group" "" "resources" $both "names" (list (include "fairway.control.fullname" .)) "verbs" (list "get" "update")) }}
{{- end }}
{{- end -}}

{{/* Rights to objects outside of namespaces. */}}
{{- define "fairway.rules.cluster" -}}
{{- $flags := include "fairway.flags" . | fromYaml -}}
{{- $duties := include "fairway.duties" . | fromYaml -}}
{{ include "fairway.rule" (dict "group" "networking.k8s.io" "resources" (list "ingressclasses") "verbs" (list "list" "watch")) }}
{{- if $duties.gateways }}
{{ include "fairway.rule" (dict "group" "gateway.networking.k8s.io" "resources" (list "gatewayclasses") "verbs" (list "list" "watch")) }}
{{- if $duties.status }}
{{ include "fairway.rule" (dict "group" "gateway.networking.k8s.io" "resources" (list "gatewayclasses/status") "verbs" (list "patch")) }}
{{- end }}
{{- end }}
{{- if not (hasKey $flags "watch-namespace") }}
{{ include "fairway.rule" (dict "group" "" "resources" (list "namespaces") "verbs" (list "list" "watch")) }}
{{- end }}
{{- if or $duties.nodes $duties.zone }}
{{ include "fairway.rule" (dict "group" "" "resources" (list "nodes") "verbs" (list "get")) }}
{{- end }}
{{- if eq .Values.controller.mode "split" }}
{{- /* Whether it is a proxy that asks for a certificate. */}}
{{ include "fairway.rule" (dict "group" "authentication.k8s.io" "resources" (list "tokenreviews") "verbs" (list "create")) }}
{{- end }}
{{- end -}}

{{/*
The rules of each namespace when only one is served: a map from namespace to text. Objects that flags name may live elsewhere.
*/}}
{{- define "fairway.rules.scoped" -}}
{{- $own := include "fairway.namespace" . -}}
{{- $flags := include "fairway.flags" . | fromYaml -}}
{{- $duties := include "fairway.duties" . | fromYaml -}}
{{- $watched := index $flags "watch-namespace" | replace "$(POD_NAMESPACE)" $own -}}
{{- $rules := dict $watched (include "fairway.rules.served" .) -}}
{{- $named := list
  (dict "flag" "configmap" "group" "" "resources" (list "configmaps"))
  (dict "flag" "tcp-services-configmap" "group" "" "resources" (list "configmaps"))
  (dict "flag" "udp-services-configmap" "group" "" "resources" (list "configmaps"))
  (dict "flag" "default-backend-service" "group" "" "resources" (list "services"))
  (dict "flag" "default-backend-service" "group" "discovery.k8s.io" "resources" (list "endpointslices"))
  (dict "flag" "default-ssl-certificate" "group" "" "resources" (list "secrets")) -}}
{{- /* What is wrong with one of these is said in Events of its own. */}}
{{- range $flag := list "configmap" "tcp-services-configmap" "udp-services-configmap" "default-backend-service" "default-ssl-certificate" -}}
{{- $named = append $named (dict "flag" $flag "group" "" "resources" (list "events") "verbs" (list "create")) -}}
{{- end -}}
{{- if $duties.status -}}
{{- $named = append $named (dict "flag" "publish-service" "group" "" "resources" (list "services") "single" true) -}}
{{- if $duties.gateways -}}
{{- $named = append $named (dict "flag" "publish-service" "group" "discovery.k8s.io" "resources" (list "endpointslices")) -}}
{{- end -}}
{{- end -}}
{{- range $rule := $named -}}
{{- with index $flags $rule.flag -}}
{{- $object := splitList "/" (replace "$(POD_NAMESPACE)" $own .) -}}
{{- $namespace := first $object -}}
{{- if ne $namespace $watched -}}
{{- $_ := set $rule "verbs" ($rule.verbs | default (list "list" "watch")) -}}
{{- if $rule.single -}}{{- $_ := set $rule "names" (list (last $object)) -}}{{- end -}}
{{- $text := include "fairway.rule" $rule -}}
{{- $before := index $rules $namespace | default "" -}}
{{- /* Who may read all Services there needs no right to a single one. */}}
{{- if not (or (contains $text $before) (and $rule.single (contains (toJson $rule.resources) $before))) -}}{{- $_ := set $rules $namespace (printf "%s\n%s" $before $text) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with include "fairway.rules.own" . -}}{{- $_ := set $rules $own (printf "%s\n%s" (index $rules $own | default "") (trim .)) -}}{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{/*
All rules: a map from namespace, or `*` for the cluster, to text. A pod learns at its start what it may read, so the template of
pods has a sum of this, and nothing else of roles: labels change with each version.
*/}}
{{- define "fairway.rights" -}}
{{- $rights := dict -}}
{{- if hasKey (include "fairway.flags" . | fromYaml) "watch-namespace" -}}
{{- $rights = include "fairway.rules.scoped" . | fromYaml -}}
{{- if not .Values.rbac.scope -}}{{- $_ := set $rights "*" (include "fairway.rules.cluster" .) -}}{{- end -}}
{{- else -}}
{{- $_ := set $rights "*" (printf "%s\n%s" (include "fairway.rules.served" .) (include "fairway.rules.cluster" .)) -}}
{{- with include "fairway.rules.own" . -}}{{- $_ := set $rights (include "fairway.namespace" $) . -}}{{- end -}}
{{- end -}}
{{- toYaml $rights -}}
{{- end -}}

{{/* A Role or ClusterRole, and its binding to the controller's account. */}}
{{- define "fairway.grant" -}}
{{- $clusterWide := empty .namespace -}}
{{- $kind := ternary "ClusterRole" "Role" $clusterWide -}}
{{- $name := include "fairway.fullname" .root -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
{{ include "fairway.controller.metadata" (dict "root" .root "name" $name "namespace" .namespace "clusterWide" $clusterWide) }}
rules: {{- .rules | trim | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
{{ include "fairway.controller.metadata" (dict "root" .root "name" $name "namespace" .namespace "clusterWide" $clusterWide) }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "fairway.serviceAccountName" .root }}
    namespace: {{ include "fairway.namespace" .root }}
{{- end -}}
