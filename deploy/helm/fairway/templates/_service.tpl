{{/*
The Services in front of the controller: the external one takes its fields from controller.service, the internal one from
controller.service.internal, and from the former what it doesn't have itself.
*/}}

{{- define "fairway.controller.service" -}}
{{- $root := .root -}}
{{- $own := .own -}}
{{- $service := $root.Values.controller.service -}}
{{- $type := default $service.type $own.type -}}
{{- /* The API server says only that there is a duplicate. */}}
{{- range $name, $enabled := dict "http" $service.enableHttp "https" $service.enableHttps -}}
{{- $port := index $own.ports $name | default (index $service.ports $name) | include "fairway.text" -}}
{{- if and $enabled (hasKey $root.Values.tcp $port) -}}
{{- fail (printf "tcp: the port %s is that of %s (controller.service.ports.%s)" $port $name $name) -}}
{{- end -}}
{{- end -}}
{{- $nodePorts := ternary $own.nodePorts dict (has $type (list "NodePort" "LoadBalancer")) -}}
apiVersion: v1
kind: Service
{{ include "fairway.controller.metadata" (dict "root" $root "name" .name "labels" (list $service.labels .labels) "annotations" (include "fairway.templated" (dict "root" $root "map" $own.annotations) | fromYaml)) }}
spec:
  type: {{ $type }}
  {{- with include "fairway.pick" (dict "from" $own "names" (list "clusterIP" "clusterIPs" "externalIPs" "externalTrafficPolicy" "healthCheckNodePort" "ipFamilies" "ipFamilyPolicy" "loadBalancerClass" "loadBalancerIP" "loadBalancerSourceRanges" "sessionAffinity")) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if hasKey $own "allocateLoadBalancerNodePorts" }}
  allocateLoadBalancerNodePorts: {{ $own.allocateLoadBalancerNodePorts }}
  {{- end }}
  {{- if and $own.trafficDistribution (semverCompare ">=1.31.0-0" $root.Capabilities.KubeVersion.Version) }}
  trafficDistribution: {{ $own.trafficDistribution }}
  {{- end }}
  ports:
    {{- range $name, $enabled := dict "http" $service.enableHttp "https" $service.enableHttps }}
    {{- if $enabled }}
    - name: {{ $name }}
      port: {{ index $own.ports $name | default (index $service.ports $name) }}
      protocol: TCP
      {{- $target := index $own.targetPorts $name | default (index $service.targetPorts $name) }}
      {{- $number := index $root.Values.controller.containerPort (include "fairway.text" $target) | default $target }}
      targetPort: {{ include "fairway.targetPort" (dict "root" $root "port" $target "number" $number) }}
      {{- if $own.appProtocol }}
      appProtocol: {{ $name }}
      {{- end }}
      {{- with index $nodePorts $name }}
      nodePort: {{ . }}
      {{- end }}
    {{- end }}
    {{- end }}
    {{- range $protocol := list "tcp" "udp" }}
    {{- range $port, $_ := index $root.Values $protocol }}
    - name: {{ include "fairway.streamPort" (dict "root" $root "port" $port "protocol" $protocol) }}
      port: {{ $port }}
      protocol: {{ upper $protocol }}
      targetPort: {{ include "fairway.targetPort" (dict "root" $root "port" (include "fairway.streamPort" (dict "root" $root "port" $port "protocol" $protocol)) "number" $port) }}
      {{- with index $nodePorts $protocol }}
      {{- with index . $port }}
      nodePort: {{ . }}
      {{- end }}
      {{- end }}
    {{- end }}
    {{- end }}
  selector: {{- include "fairway.selector" (dict "root" $root "component" "controller") | nindent 4 }}
{{- end -}}

{{/* A `map` whose values may be templates. `null` removes what another values file has set. */}}
{{- define "fairway.templated" -}}
{{- $out := dict -}}
{{- range $key, $value := .map -}}{{- if not (kindIs "invalid" $value) -}}{{- $_ := set $out $key (tpl (include "fairway.text" $value) $.root) -}}{{- end -}}{{- end -}}
{{- toYaml $out -}}
{{- end -}}
