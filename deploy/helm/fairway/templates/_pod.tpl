{{/*
The controller's pod, which a Deployment and a DaemonSet share.
*/}}

{{/*
Ports below 1024 without a right for the process: a sysctl that counts as safe lowers where privileged ports begin, in the pod's
own network only. On the host's network it can't be set; there the program file carries the capability.
*/}}
{{- define "fairway.controller.podSecurityContext" -}}
{{- $controller := .Values.controller -}}
{{- $sysctls := dict -}}
{{- if not $controller.hostNetwork -}}{{- $_ := set $sysctls "net.ipv4.ip_unprivileged_port_start" "0" -}}{{- end -}}
{{- $own := $controller.podSecurityContext | default dict -}}
{{- range $own.sysctls -}}{{- $_ := set $sysctls .name .value -}}{{- end -}}
{{- range $name, $value := $controller.sysctls | default dict -}}{{- $_ := set $sysctls $name $value -}}{{- end -}}
{{- with omit $own "sysctls" }}
{{- toYaml . }}
{{ end }}
{{- with $sysctls -}}
sysctls:
{{- range $name, $value := . }}
  - name: {{ $name | quote }}
    value: {{ include "fairway.text" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
A process that isn't root gets the capability to listen on ports below 1024 from the program file, and only if it may gain
privileges at all. There is just that one program in the image.
*/}}
{{- define "fairway.controller.securityContext" -}}
{{- $controller := .root.Values.controller -}}
{{- if $controller.containerSecurityContext -}}
{{- toYaml $controller.containerSecurityContext -}}
{{- else if eq .role "controller" -}}
{{- /* It listens on no port below 1024. */}}
{{- include "fairway.securityContext" (dict "image" $controller.image) -}}
{{- else -}}
{{- include "fairway.securityContext" (dict "image" $controller.image "capabilities" (list "NET_BIND_SERVICE") "escalation" $controller.hostNetwork) -}}
{{- end -}}
{{- end -}}

{{/*
The probe `probe`, called `name`; where it has that chart's path and port, it follows the flags that change them. For readiness
Fairway has a path of its own, which stays good while a pod that ends still takes connections: without a ready pod on a node,
`externalTrafficPolicy: Local` drops what still comes there.
*/}}
{{- define "fairway.probe" -}}
{{- $probe := deepCopy .probe -}}
{{- with $probe.httpGet -}}
{{- if eq (toString .path) "/healthz" -}}{{- $_ := set . "path" (ternary "/readyz" (include "fairway.healthPath" $.root) (eq $.name "readinessProbe")) -}}{{- end -}}
{{- if eq (toString .port) "10254" -}}{{- $_ := set . "port" (include "fairway.healthPort" $.root | int) -}}{{- end -}}
{{- end -}}
{{- /*
With handover, two pods of a node have one health port, and while the new one starts nobody is ready there. Kubernetes would delete the old one
for that before the new one serves.
*/}}
{{- if and (eq $.name "readinessProbe") (include "fairway.handover" $.root) -}}{{- $_ := set $probe "failureThreshold" (max 60 (int $probe.failureThreshold)) -}}{{- end -}}
{{- /* What the API server leaves out again would be a change each time that a manifest is applied. */}}
{{- if not $probe.initialDelaySeconds -}}{{- $probe = omit $probe "initialDelaySeconds" -}}{{- end -}}
{{- toYaml $probe -}}
{{- end -}}

{{/* "true" if a preStop hook runs a program of ingress-nginx's image. Fairway does the same itself on SIGTERM. */}}
{{- define "fairway.waitShutdown" -}}
{{- with .Values.controller.lifecycle }}{{ with .preStop }}{{ with .exec }}
{{- if contains "/wait-shutdown" (join " " .command) }}true{{ end }}
{{- end }}{{ end }}{{ end }}
{{- end -}}

{{/*
The program that `handler`, a hook or a probe, runs in the container and that isn't there: /fairway is all that the image holds, an
image of another name and what is mounted may hold others.
*/}}
{{- define "fairway.missingProgram" -}}
{{- with .handler }}{{ with .exec }}{{ with .command -}}
{{- $program := first . -}}
{{- $found := or (eq $program "/fairway") (ne (base $.root.Values.image.repository) "fairway") -}}
{{- range $mount := $.root.Values.controller.extraVolumeMounts -}}
{{- $found = or $found (hasPrefix (printf "%s/" (trimSuffix "/" $mount.mountPath)) $program) -}}
{{- end -}}
{{- if not $found }}{{ $program }}{{ end -}}
{{- end }}{{ end }}{{ end }}
{{- end -}}

{{/* The seconds for which a preStop hook sleeps in a shell or by itself, as a text. */}}
{{- define "fairway.sleeps" -}}
{{- with .Values.controller.lifecycle }}{{ with .preStop }}{{ with .exec }}
{{- regexFind "\\bsleep +[0-9]+" (join " " .command) | trimPrefix "sleep" | trim -}}
{{- end }}{{ end }}{{ end }}
{{- end -}}

{{/* Refuses values with which a container would never run, or never be ready. */}}
{{- define "fairway.checkPrograms" -}}
{{- $handlers := pick .Values.controller "startupProbe" "livenessProbe" "readinessProbe" -}}
{{- with .Values.controller.lifecycle }}{{ with .postStart }}{{ $_ := set $handlers "lifecycle.postStart" . }}{{ end }}{{ end -}}
{{- range $name, $handler := $handlers -}}
{{- with include "fairway.missingProgram" (dict "root" $ "handler" $handler) -}}
{{- fail (printf "controller.%s: %s isn't in the image, which holds nothing but /fairway: %s" $name . (ternary "the container would be restarted for ever" "ask by httpGet" (eq $name "lifecycle.postStart"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fairway.lifecycle" -}}
{{- include "fairway.checkPrograms" . -}}
{{- $lifecycle := .Values.controller.lifecycle -}}
{{- if include "fairway.waitShutdown" . -}}{{- $lifecycle = omit $lifecycle "preStop" -}}{{- end -}}
{{- with $lifecycle -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* A port of the list `ports`: name, port, protocol, and hostPort if there is one. */}}
{{- define "fairway.controller.ports" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $controller := $root.Values.controller -}}
{{- if ne $role "controller" }}
{{- range $name, $port := $controller.containerPort }}
- name: {{ $name }}
  containerPort: {{ $port }}
  protocol: TCP
  {{- if $controller.hostPort.enabled }}
  hostPort: {{ index $controller.hostPort.ports $name | default $port }}
  {{- end }}
{{- end }}
{{- end }}
{{- if $controller.metrics.enabled }}
- name: {{ ternary (include "fairway.controlPortName" $root) $controller.metrics.portName (eq $role "controller") }}
  containerPort: {{ ternary (include "fairway.controlPort" $root) (include "fairway.healthPort" $root) (eq $role "controller") }}
  protocol: TCP
{{- end }}
{{- if and (eq $role "controller") (eq $controller.mode "split") }}
- name: channel
  containerPort: {{ $controller.control.channelPort }}
  protocol: TCP
{{- end }}
{{- if and $controller.validatingWebhook.enabled (ne $role "proxy") }}
- name: validation
  containerPort: {{ $controller.validatingWebhook.port }}
  protocol: TCP
{{- end }}
{{- if ne $role "controller" }}
{{- range $protocol := list "tcp" "udp" }}
{{- range $port, $_ := index $root.Values $protocol }}
- name: {{ include "fairway.streamPort" (dict "root" $root "port" $port "protocol" $protocol) }}
  containerPort: {{ $port }}
  protocol: {{ upper $protocol }}
  {{- if $controller.hostPort.enabled }}
  hostPort: {{ $port }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The name of a port of a TCP or UDP service. */}}
{{- define "fairway.streamPort" -}}
{{- with .root.Values.portNamePrefix }}{{ . }}-{{ end }}{{ .port }}-{{ .protocol }}
{{- end -}}

{{/*
Replicas spread over nodes if possible; those of the version before don't count. Zones are left to the affinity below: where nodes
don't have all keys of a pod's constraints, the scheduler follows none of them.
*/}}
{{- define "fairway.controller.spread" -}}
- topologyKey: kubernetes.io/hostname
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "fairway.selector" (dict "root" . "component" "controller") | nindent 6 }}
  {{- if semverCompare ">=1.27.0-0" .Capabilities.KubeVersion.Version }}
  matchLabelKeys:
    - pod-template-hash
  {{- end }}
{{- end -}}

{{/* And over zones, if there are any. */}}
{{- define "fairway.controller.affinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: topology.kubernetes.io/zone
        labelSelector:
          matchLabels: {{- include "fairway.selector" (dict "root" . "component" "controller") | nindent 12 }}
        {{- if semverCompare ">=1.31.0-0" .Capabilities.KubeVersion.Version }}
        matchLabelKeys:
          - pod-template-hash
        {{- end }}
{{- end -}}

{{/*
"true" if a budget would keep every pod from being evicted: it selects the pods of a DaemonSet as well, of which Kubernetes doesn't
know how many there should be, so it can't tell how many may be missing, or a part of all.
*/}}
{{- define "fairway.controller.uncountable" -}}
{{- $controller := .Values.controller -}}
{{- if and (eq $controller.kind "Both") (or (hasKey $controller "maxUnavailable") (contains "%" (toString $controller.minAvailable))) }}true{{ end -}}
{{- end -}}

{{/*
What the containers of a pod that serves do, as a list: everything in one process, or a controller, which has the token, beside a proxy,
which has none, or the latter alone. The values of that chart about a container (ports, probes, lifecycle, resources) are those of the process that serves; what is
mounted and set for both is what the user adds.
*/}}
{{- define "fairway.roles" -}}
{{- index (dict "single" (list "run") "pair" (list "controller" "proxy") "split" (list "proxy")) .Values.controller.mode | toYaml -}}
{{- end -}}

{{/* The container of `role`. */}}
{{- define "fairway.controller.container" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $controller := $root.Values.controller -}}
- name: {{ ternary "proxy" $controller.containerName (eq $role "proxy") }}
  image: {{ include "fairway.controller.image" $root | quote }}
  imagePullPolicy: {{ $controller.image.pullPolicy }}
  command:
    - /fairway
  args: {{- include "fairway.args" (dict "root" $root "role" $role) | nindent 4 }}
  env:
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: POD_NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
    {{- if eq $role "controller" }}
    {{- /* Most of the time it has nothing to do. The allocator would give back what is unused at the next change, which may not come. */}}
    - name: MIMALLOC_PURGE_DELAY
      value: "0"
    {{- end }}
    {{- with $controller.extraEnvs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $ports := include "fairway.controller.ports" (dict "root" $root "role" $role) | trim }}
  {{- /* Each would be a port of the node, which only one pod can have. */}}
  {{- if and (ne $role "controller") (include "fairway.handover" $root) }}{{ $ports = "" }}{{ end }}
  {{- with $ports }}
  ports: {{- . | nindent 4 }}
  {{- end }}
  {{- if eq $role "controller" }}
  {{- /*
  In a pod with a proxy, that alone decides: it serves on while a controller starts anew and the API server is away. There the parent of
  the controller asks whether it is alive.
  */}}
  {{- if eq $controller.mode "split" }}
  livenessProbe: {{- include "fairway.controlProbe" (dict "root" $root "path" "/livez" "period" 10) | nindent 4 }}
  readinessProbe: {{- include "fairway.controlProbe" (dict "root" $root "path" "/readyz" "period" 2) | nindent 4 }}
  {{- end }}
  {{- else }}
  {{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" }}
  {{- with index $controller $probe }}
  {{ $probe }}: {{- include "fairway.probe" (dict "root" $root "name" $probe "probe" .) | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with include "fairway.lifecycle" $root }}
  lifecycle: {{- . | nindent 4 }}
  {{- end }}
  {{- end }}
  securityContext: {{- include "fairway.controller.securityContext" (dict "root" $root "role" $role) | nindent 4 }}
  {{- with ternary $controller.control.resources $controller.resources (eq $role "controller") }}
  resources: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if semverCompare ">=1.33.0-0" $root.Capabilities.KubeVersion.Version }}
  {{- with $controller.resizePolicy }}
  resizePolicy: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- $mounts := $controller.extraVolumeMounts | default list }}
  {{- if and $controller.validatingWebhook.enabled (ne $role "proxy") }}
  {{- $mounts = append $mounts (dict "name" "validation" "mountPath" "/etc/fairway/validation" "readOnly" true) }}
  {{- if $controller.validatingWebhook.clientAuthorityConfigMap }}
  {{- $mounts = append $mounts (dict "name" "validation-client" "mountPath" "/etc/fairway/validation-client" "readOnly" true) }}
  {{- end }}
  {{- end }}
  {{- if eq $controller.mode "split" }}
  {{- if eq $role "proxy" }}
  {{- $mounts = append $mounts (dict "name" "control-authority" "mountPath" "/etc/fairway/control" "readOnly" true) }}
  {{- $mounts = append $mounts (dict "name" "control-token" "mountPath" "/var/run/secrets/fairway.dev/control" "readOnly" true) }}
  {{- end }}
  {{- else if ne $role "run" }}
  {{- /* Who only connects to the socket needs no right to write beside it. */}}
  {{- $mount := dict "name" "control" "mountPath" "/run/fairway" }}
  {{- if eq $role "proxy" }}{{- $_ := set $mount "readOnly" true }}{{- end }}
  {{- $mounts = append $mounts $mount }}
  {{- end }}
  {{- if and (eq $role "controller") (eq $controller.mode "pair") $root.Values.serviceAccount.automountServiceAccountToken }}
  {{- $mounts = append $mounts (dict "name" "token" "mountPath" "/var/run/secrets/kubernetes.io/serviceaccount" "readOnly" true) }}
  {{- end }}
  {{- if and $controller.snapshot.keySecret (eq $role "proxy") }}
  {{- $mounts = append $mounts (dict "name" "snapshot" "mountPath" "/var/lib/fairway/snapshot") }}
  {{- /* A place that the process can't read any more once it has begun. */}}
  {{- $mounts = append $mounts (dict "name" "snapshot-key" "mountPath" "/var/run/secrets/fairway.dev/snapshot" "readOnly" true) }}
  {{- end }}
  {{- with $mounts }}
  volumeMounts: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The volumes of a pod with these `roles`, as a list. */}}
{{- define "fairway.controller.volumes" -}}
{{- $controller := .root.Values.controller -}}
{{- $volumes := $controller.extraVolumes | default list -}}
{{- if and $controller.validatingWebhook.enabled (ne (first .roles) "proxy") -}}
{{- $secret := $controller.validatingWebhook.certificateSecret | default (include "fairway.validation.fullname" .root) -}}
{{- $volumes = append $volumes (dict "name" "validation" "secret" (dict "secretName" $secret)) -}}
{{- with $controller.validatingWebhook.clientAuthorityConfigMap -}}
{{- $volumes = append $volumes (dict "name" "validation-client" "configMap" (dict "name" .)) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $controller.mode "split") (eq (first .roles) "proxy") -}}
{{- /* The pods wait for it: a controller makes it when the first one starts. */ -}}
{{- $authority := dict "name" (include "fairway.control.fullname" .root) "items" (list (dict "key" "ca.crt" "path" "ca.crt")) -}}
{{- $volumes = append $volumes (dict "name" "control-authority" "configMap" $authority) -}}
{{- /* Good for nothing but the proof of being a proxy, which controllers may be away for when it starts. */ -}}
{{- $token := dict "serviceAccountToken" (dict "path" "token" "audience" "fairway.dev/control" "expirationSeconds" 86400) -}}
{{- $volumes = append $volumes (dict "name" "control-token" "projected" (dict "defaultMode" 420 "sources" (list $token))) -}}
{{- else if eq $controller.mode "pair" -}}
{{- $volumes = append $volumes (dict "name" "control" "emptyDir" (dict "medium" "Memory" "sizeLimit" "1Mi")) -}}
{{- if .root.Values.serviceAccount.automountServiceAccountToken -}}
{{- /* What Kubernetes would mount into every container of the pod. */ -}}
{{- $token := dict "serviceAccountToken" (dict "path" "token" "expirationSeconds" 3607) -}}
{{- $authority := dict "configMap" (dict "name" "kube-root-ca.crt" "items" (list (dict "key" "ca.crt" "path" "ca.crt"))) -}}
{{- $field := dict "apiVersion" "v1" "fieldPath" "metadata.namespace" -}}
{{- $namespace := dict "downwardAPI" (dict "items" (list (dict "path" "namespace" "fieldRef" $field))) -}}
{{- $volumes = append $volumes (dict "name" "token" "projected" (dict "defaultMode" 420 "sources" (list $token $authority $namespace))) -}}
{{- end -}}
{{- end -}}
{{- with $controller.snapshot -}}
{{- if and .keySecret (has "proxy" $.roles) -}}
{{- $volume := dict "name" "snapshot" -}}
{{- if .hostPath -}}{{- $_ := set $volume "hostPath" (dict "path" .hostPath "type" "Directory") -}}
{{- else -}}{{- $_ := set $volume "emptyDir" (dict "sizeLimit" (include "fairway.text" .sizeLimit)) -}}
{{- end -}}
{{- $key := dict "secretName" .keySecret "items" (list (dict "key" "key" "path" "key")) -}}
{{- $volumes = concat $volumes (list $volume (dict "name" "snapshot-key" "secret" $key)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $volumes -}}
{{- end -}}

{{/* A controller is well as long as it answers: waiting for the API server is no reason to start it anew. */}}
{{- define "fairway.controlProbe" -}}
httpGet:
  path: {{ .path }}
  port: {{ include "fairway.controlPort" .root }}
  scheme: HTTP
periodSeconds: {{ .period }}
timeoutSeconds: 5
failureThreshold: 5
successThreshold: 1
{{- end -}}

{{/* The template of pods of `kind`. */}}
{{- define "fairway.controller.pod" -}}
{{- $root := .root -}}
{{- $controller := $root.Values.controller -}}
metadata:
  {{- $annotations := dict }}
  {{- if and $root.Values.rbac.create (ne $controller.mode "split") }}{{- $_ := set $annotations "checksum/rights" (include "fairway.rights" $root | sha256sum) }}{{- end }}
  {{- /* What people ask a pod for is what it serves. */}}
  {{- if eq $controller.mode "pair" }}{{- $_ := set $annotations "kubectl.kubernetes.io/default-container" "proxy" }}{{- end }}
  {{- with merge (deepCopy ($controller.podAnnotations | default dict)) $annotations }}
  annotations: {{- include "fairway.strings" . | nindent 4 }}
  {{- end }}
  labels: {{- include "fairway.podLabels" (dict "root" $root "component" "controller" "labels" (list $controller.labels $controller.podLabels)) | nindent 4 }}
spec:
  serviceAccountName: {{ ternary (include "fairway.proxyAccountName" $root) (include "fairway.serviceAccountName" $root) (eq $controller.mode "split") }}
  automountServiceAccountToken: {{ and $root.Values.serviceAccount.automountServiceAccountToken (eq $controller.mode "single") }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $controller.terminationGracePeriodSeconds }}
  {{- /* In mode split the name of a Service leads to controllers, and the resolver of a node does not know it. */}}
  {{- $resolves := and (eq $controller.mode "split") $controller.hostNetwork (eq $controller.dnsPolicy "ClusterFirst") }}
  dnsPolicy: {{ ternary "ClusterFirstWithHostNet" $controller.dnsPolicy $resolves }}
  {{- with include "fairway.pick" (dict "from" $controller "names" (list "dnsConfig" "hostname" "hostNetwork" "nodeSelector" "priorityClassName" "runtimeClassName" "shareProcessNamespace" "tolerations")) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $controller.hostAliases }}
  hostAliases: {{- tpl (toYaml .) $root | nindent 4 }}
  {{- end }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $controller.affinity }}
  affinity: {{- tpl (toYaml .) $root | nindent 4 }}
  {{- end }}
  {{- with $controller.topologySpreadConstraints }}
  topologySpreadConstraints: {{- tpl (toYaml .) $root | nindent 4 }}
  {{- end }}
  {{- if not (or $controller.affinity $controller.topologySpreadConstraints (eq .kind "DaemonSet")) }}
  affinity: {{- include "fairway.controller.affinity" $root | nindent 4 }}
  topologySpreadConstraints: {{- include "fairway.controller.spread" $root | nindent 4 }}
  {{- end }}
  {{- with include "fairway.controller.podSecurityContext" $root | trim }}
  securityContext: {{- . | nindent 4 }}
  {{- end }}
  {{- with $controller.extraInitContainers }}
  initContainers: {{- tpl (toYaml .) $root | nindent 4 }}
  {{- end }}
  containers:
    {{- $roles := include "fairway.roles" $root | fromYamlArray }}
    {{- range $role := $roles }}
    {{- include "fairway.controller.container" (dict "root" $root "role" $role) | nindent 4 }}
    {{- end }}
    {{- with $controller.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "fairway.controller.volumes" (dict "root" $root "roles" $roles) | fromYamlArray }}
  volumes: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The template of pods of controllers in mode split. What is said about placing pods and about the network is about proxies. */}}
{{- define "fairway.control.pod" -}}
{{- $root := . -}}
{{- $controller := .Values.controller -}}
{{- $control := $controller.control -}}
metadata:
  {{- if .Values.rbac.create }}
  annotations:
    checksum/rights: {{ include "fairway.rights" . | sha256sum }}
  {{- end }}
  labels: {{- include "fairway.podLabels" (dict "root" . "component" "control" "labels" (list $controller.labels)) | nindent 4 }}
spec:
  serviceAccountName: {{ include "fairway.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automountServiceAccountToken }}
  enableServiceLinks: false
  {{- with include "fairway.pick" (dict "from" $control "names" (list "nodeSelector" "tolerations")) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $controller.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {{- include "fairway.selector" (dict "root" . "component" "control") | nindent 16 }}
  {{- with omit ($controller.podSecurityContext | default dict) "sysctls" }}
  securityContext: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    {{- include "fairway.controller.container" (dict "root" . "role" "controller") | nindent 4 }}
  {{- with include "fairway.controller.volumes" (dict "root" . "roles" (list "controller")) | fromYamlArray }}
  volumes: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* A mirror set for all images applies to Fairway's too, but the registry of the Kubernetes project doesn't have it. */}}
{{- define "fairway.controller.image" -}}
{{- $image := deepCopy .Values.image -}}
{{- $global := .Values.global.image.registry -}}
{{- if and (not $image.registry) (ne $global "registry.k8s.io") -}}{{- $_ := set $image "registry" $global -}}{{- end -}}
{{- $_ := set $image "tag" (default .Chart.AppVersion $image.tag) -}}
{{- include "fairway.imageName" $image -}}
{{- end -}}
