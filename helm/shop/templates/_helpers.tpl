{{/* The name of objects of the release as a whole. Chart.Name is the alias, if another chart depends on this one by an alias. */}}
{{- define "shop.fullname" -}}
{{ .Values.fullnameOverride | default .Chart.Name }}
{{- end -}}

{{/* The prefix of the names of components. */}}
{{- define "shop.prefix" -}}
{{ with .Values.fullnameOverride | default (eq .Chart.Name "shop" | ternary "" .Chart.Name) }}{{ . }}-{{ end }}
{{- end -}}

{{/* The name of an object that belongs to a component. Call with (list $ component). */}}
{{- define "shop.objectName" -}}
{{ include "shop.prefix" (index . 0) }}{{ index . 1 }}
{{- end -}}

{{/* The settings of a service: serviceDefaults with its own overrides, and the addresses of the services that it calls, as
     USER_SERVICE_URL. Call with (list $ name). */}}
{{- define "shop.service" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $service := mustMergeOverwrite (deepCopy $root.Values.serviceDefaults) (deepCopy (index $root.Values.services $name | default dict)) -}}
{{- $env := dict -}}
{{- range $other, $own := $root.Values.services -}}
{{- if has $name (($own).callers | default $root.Values.serviceDefaults.callers) -}}
{{- /* Headless: it resolves to the addresses of all pods, where another Service has one address for all. */ -}}
{{- $_ := set $env (printf "%s_SERVICE_URL" (trimSuffix "-svc" $other | replace "-" "_" | upper)) (printf "dns:///%s-headless:50051" (include "shop.objectName" (list $root $other))) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $service "env" (mustMergeOverwrite $env ($service.env | default dict)) -}}
{{- toYaml $service -}}
{{- end -}}

{{/* The image of a service or of the edge. Call with (list $ name). */}}
{{- define "shop.image" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $digest := get ($root.Values.image.digests | default dict) $name -}}
{{- $repository := include "shop.mirrored" (list $root (printf "%s/%s" $root.Values.image.registry $name)) -}}
{{ $repository }}{{ if $digest }}@{{ $digest }}{{ else }}:{{ include "shop.tag" $root }}{{ end }}
{{- end -}}

{{/* The image of the rate limiter, which is not ours. */}}
{{- define "shop.rateLimiterImage" -}}
{{ include "shop.mirrored" (list . .Values.edge.globalRateLimit.image) }}
{{- end -}}

{{/* The name of an image in `global.imageRegistry`, if there is one: it takes the place of the host, which has a dot or a port, or
     is localhost. Call with (list $ name). */}}
{{- define "shop.mirrored" -}}
{{- $name := index . 1 -}}
{{- with ((index . 0).Values.global).imageRegistry -}}
{{- $name = printf "%s/%s" . (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $name "") -}}
{{- end -}}
{{ $name }}
{{- end -}}

{{/* The options of the edge that say how much one address may ask for: the rate limiter's file is made from the same. */}}
{{- define "shop.rateLimitOptions" -}}
- --rate-limit={{ int .Values.edge.rateLimit }}
- --public-write-limit={{ int .Values.edge.publicWriteLimit }}
{{- end -}}

{{/* The container that writes the rate limiter's file of limits, by the edge's image. */}}
{{- define "shop.rateLimits" -}}
name: limits
image: {{ include "shop.image" (list . "edge") }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [python, -m, envoy, limits]
args:
  - --environment=kubernetes
  {{- include "shop.rateLimitOptions" . | nindent 2 }}
  - --into=/etc/limits/config/limits.yaml
resources:
  requests: {cpu: 50m, memory: 64Mi}
  limits: {cpu: 500m, memory: 128Mi}
{{- with (include "shop.workload" (list .Values .Values.edge.globalRateLimit) | fromYaml).pod.containerSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: limits, mountPath: /etc/limits/config}
{{- end -}}

{{/* How the rate limiter is run: docker/compose.limits.yaml explains it, and a test compares the two. */}}
{{- define "shop.rateLimiterEnv" -}}
{{- $redis := .Values.edge.globalRateLimit.redis -}}
HOST: 127.0.0.1
{{- with include "shop.bothFamilies" . }}
GRPC_HOST: {{ . | quote }}
{{- end }}
GRPC_PORT: "8081"
GRPC_SERVER_USE_TLS: "true"
GRPC_SERVER_TLS_CERT: /etc/shop/tls/tls.crt
GRPC_SERVER_TLS_KEY: /etc/shop/tls/tls.key
GRPC_CLIENT_TLS_CACERT: /etc/shop/tls/ca.crt
GRPC_CLIENT_TLS_SAN: edge
DEBUG_HOST: 127.0.0.1
LOG_LEVEL: warn
LOG_FORMAT: json
USE_STATSD: "false"
USE_PROMETHEUS: "true"
PROMETHEUS_ADDR: ":9464"
RUNTIME_ROOT: /etc/limits
RUNTIME_APPDIRECTORY: config
RUNTIME_WATCH_ROOT: "false"
RUNTIME_IGNOREDOTFILES: "true"
REDIS_SOCKET_TYPE: tcp
REDIS_URL: {{ $redis.address | quote }}
REDIS_TIMEOUT: 1s
REDIS_HEALTH_CHECK_ACTIVE_CONNECTION: "true"
{{- if $redis.tls }}
REDIS_TLS: "true"
{{- if $redis.authority.existingSecret }}
REDIS_TLS_CACERT: /etc/shop/limits/ca.crt
{{- end }}
{{- end }}
{{- with $redis.existingSecret }}
REDIS_AUTH: {valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: REDIS_AUTH}}}
{{- end }}
EXPIRATION_JITTER_MAX_SECONDS: "0"
LOCAL_CACHE_SIZE_IN_BYTES: "1048576"
# Releases and aliases may share a Redis: each counts for itself.
CACHE_KEY_PREFIX: {{ printf "%s/%s/" .Release.Namespace (include "shop.fullname" .) | quote }}
{{- end -}}

{{/* The version of the images. */}}
{{- define "shop.tag" -}}
{{- $tag := .Values.image.tag -}}
{{- if not (or (kindIs "string" $tag) (kindIs "invalid" $tag)) }}{{ $tag = toJson $tag }}{{ end -}}
{{ $tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The text as the value of a label: at most 63 characters, and only characters that Kubernetes allows. */}}
{{- define "shop.labelValue" -}}
{{ regexReplaceAll "[^A-Za-z0-9._-]" . "_" | trunc 63 | trimAll "-_." }}
{{- end -}}

{{/* The name of a component in certificates: for services that of their package. */}}
{{- define "shop.identity" -}}
{{ . | replace "-" "_" }}
{{- end -}}

{{/* The labels of everything in the release. */}}
{{- define "shop.release" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Call with (list $ component). */}}
{{- define "shop.selector" -}}
{{ include "shop.release" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Call with (list $ component). */}}
{{- define "shop.labels" -}}
{{ include "shop.selector" . }}
app.kubernetes.io/version: {{ include "shop.tag" (index . 0) | include "shop.labelValue" | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | include "shop.labelValue" | quote }}
{{- end -}}

{{/* The labels, with others that override them: of objects that nothing selects by these. Call with
     (list $ component labels). */}}
{{- define "shop.labelsWith" -}}
{{- mustMergeOverwrite (include "shop.labels" . | fromYaml) (index . 2 | default dict | deepCopy) | toYaml -}}
{{- end -}}

{{/* The annotations of a hook of helm that runs before an upgrade, with others that override them. Call with
     (list weight annotations). */}}
{{- define "shop.hookBefore" -}}
{{- $hook := dict "helm.sh/hook" "pre-install,pre-upgrade" "helm.sh/hook-weight" (index . 0) "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{- mustMergeOverwrite $hook (index . 1 | default dict | deepCopy) | toYaml -}}
{{- end -}}

{{/* The resources of a container, without those that are null: to Kubernetes null is 0. */}}
{{- define "shop.resources" -}}
{{- $resources := dict -}}
{{- range $side, $amounts := . | default dict -}}
{{- $given := dict -}}
{{- range $resource, $amount := $amounts | default dict -}}
{{- if not (kindIs "invalid" $amount) }}{{ $_ := set $given $resource $amount }}{{ end -}}
{{- end -}}
{{- if $given }}{{ $_ := set $resources $side $given }}{{ end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The settings of a workload, as YAML with `env`, `pod` and `deploymentAnnotations`: of several parts of the values a
     later one overrides. Call with (list part part …), the most general first. */}}
{{- define "shop.workload" -}}
{{- $workload := dict -}}
{{- range $part := . -}}
{{- range $key := list "env" "pod" "deploymentAnnotations" -}}
{{- $_ := set $workload $key (mustMergeOverwrite (get $workload $key | default dict) (get $part $key | default dict | deepCopy)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $workload -}}
{{- end -}}

{{/* The labels and annotations of a pod. Call with (list $ component pod). */}}
{{- define "shop.podMetadata" -}}
labels:
  {{- include "shop.labels" (list (index . 0) (index . 1)) | nindent 2 }}
  {{- with (index . 2).labels }}{{ toYaml . | nindent 2 }}{{ end }}
{{- with (index . 2).annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The spec that all pods share: no API token, security context, placement. Call with (list $ component pod). */}}
{{- define "shop.pod" -}}
{{- $root := index . 0 -}}
{{- $pod := index . 2 -}}
serviceAccountName: {{ $pod.serviceAccount.name | default (include "shop.objectName" .) | quote }}
automountServiceAccountToken: false
enableServiceLinks: false # else every Service of the namespace is in the environment
{{- with $pod.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat ($root.Values.image.pullSecrets | default list) (($root.Values.global).imagePullSecrets | default list) }}
imagePullSecrets:
{{- range . }}
  - name: {{ kindIs "string" . | ternary . (get (kindIs "string" . | ternary dict .) "name") | quote }}
{{- end }}
{{- end }}
{{- with $pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "priorityClassName" "schedulerName" "runtimeClassName" "dnsPolicy" }}
{{- with get $pod $key }}
{{ $key }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- with $pod.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.initContainers }}
initContainers: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Environment variables from values: a string, a number, or a valueFrom. Call with the map. */}}
{{- define "shop.env" -}}
{{- range $name, $value := . }}
{{- if kindIs "invalid" $value }}
{{- else if kindIs "map" $value }}
- name: {{ $name }}
  valueFrom: {{- toYaml $value.valueFrom | nindent 4 }}
{{- else }}
- {name: {{ $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The Secrets with private CAs, by the peer whose certificate the CA signed. */}}
{{- define "shop.authorities" -}}
{{- dict "database" .Values.database.authority "redis" .Values.redis.authority "limits" .Values.edge.globalRateLimit.redis.authority "traces" .Values.observability.otlpAuthority | toYaml -}}
{{- end -}}

{{/* The files of private CAs, as mounts. Call with (list $ "database" "redis" "traces"). */}}
{{- define "shop.authorityMounts" -}}
{{- $authorities := include "shop.authorities" (first .) | fromYaml }}
{{- range rest . }}
{{- if (index $authorities .).existingSecret }}
- {name: {{ . }}-authority, mountPath: /etc/shop/{{ . }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* The same as volumes. */}}
{{- define "shop.authorityVolumes" -}}
{{- $authorities := include "shop.authorities" (first .) | fromYaml }}
{{- range $store := rest . }}
{{- with index $authorities $store }}
{{- if .existingSecret }}
- name: {{ $store }}-authority
  secret: {secretName: {{ .existingSecret | quote }}, defaultMode: 0440, items: [{key: {{ .key | quote }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The replicas of a Deployment, as `replicas: n`. A number that an autoscaler or `kubectl scale` has set stays until the
     values name another one. Call with (list $ name part). */}}
{{- define "shop.replicas" -}}
{{- $root := index . 0 -}}
{{- $part := index . 2 -}}
{{- $live := lookup "apps/v1" "Deployment" $root.Release.Namespace (include "shop.objectName" .) -}}
{{- if ($part.autoscaling).enabled -}}
{{- /* Without a number Kubernetes would set 1. */ -}}
{{- if $live }}replicas: {{ max (int $live.spec.replicas) (int $part.autoscaling.minReplicas) }}{{ end -}}
{{- else if and $live (eq (dig "metadata" "annotations" "shop/replicas" "" $live) (toString (int $part.replicas))) -}}
replicas: {{ $live.spec.replicas }}
{{- else -}}
replicas: {{ int $part.replicas }}
{{- end -}}
{{- end -}}

{{/* The annotations of a Deployment. One has the replicas of the values, which the next upgrade compares. Call with
     (list part workload). */}}
{{- define "shop.deploymentAnnotations" -}}
{{- $part := index . 0 -}}
{{- $annotations := (index . 1).deploymentAnnotations -}}
{{- if not ($part.autoscaling).enabled }}{{ $_ := set $annotations "shop/replicas" ($part.replicas | int | toString) }}{{ end -}}
{{- with $annotations }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* The rollout of a Deployment. Call with the part. */}}
{{- define "shop.rollout" -}}
minReadySeconds: {{ int .rollout.minReadySeconds }}
strategy:
  type: RollingUpdate
  rollingUpdate: {maxSurge: {{ .rollout.maxSurge }}, maxUnavailable: {{ .rollout.maxUnavailable }}}
{{- end -}}

{{/* How many pods a drain of nodes may take, `minAvailable: n` or `maxUnavailable: n`. Call with the disruptionBudget. */}}
{{- define "shop.budget" -}}
{{- /* A number 0 is one that is set. */ -}}
{{- if has (toString .minAvailable) (list "" "<nil>") -}}
maxUnavailable: {{ .maxUnavailable }}
{{- else -}}
minAvailable: {{ .minAvailable }}
{{- end -}}
{{- end -}}

{{/* The address of a network in bits, 32 or 128 of them. Call with the network. */}}
{{- define "shop.bits" -}}
{{- $address := regexReplaceAll "/.*" . "" | lower -}}
{{- if contains ":" $address -}}
{{- $digits := dict "0" "0000" "1" "0001" "2" "0010" "3" "0011" "4" "0100" "5" "0101" "6" "0110" "7" "0111" -}}
{{- $digits = merge $digits (dict "8" "1000" "9" "1001" "a" "1010" "b" "1011" "c" "1100" "d" "1101" "e" "1110" "f" "1111") -}}
{{- $halves := splitList "::" $address -}}
{{- $left := first $halves | splitList ":" | compact -}}
{{- $right := rest $halves | join "" | splitList ":" | compact -}}
{{- $groups := $left -}}
{{- range until (sub 8 (add (len $left) (len $right)) | int) }}{{ $groups = append $groups "0" }}{{ end -}}
{{- range concat $groups $right -}}
{{- range printf "%4s" . | replace " " "0" | splitList "" }}{{ get $digits . }}{{ end -}}
{{- end -}}
{{- else -}}
{{- range splitList "." $address }}{{ int . | printf "%08b" }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Refuses a network with bits set after its prefix, `10.0.0.5/8`, as Kubernetes does. Call with (list path network). */}}
{{- define "shop.requireNetwork" -}}
{{- $network := index . 1 -}}
{{- $bits := include "shop.bits" $network -}}
{{- if contains "1" (substr (regexFind "[0-9]+$" $network | int) (len $bits) $bits) -}}
{{- fail (printf "%s: %s is an address in a network: name the network, without bits behind the prefix" (index . 0) $network) -}}
{{- end -}}
{{- end -}}

{{/* Refuses peers of a network policy that Kubernetes refuses. Call with (list path peers). */}}
{{- define "shop.requirePeers" -}}
{{- $path := index . 0 -}}
{{- range index . 1 -}}
{{- with .ipBlock -}}
{{- $network := .cidr -}}
{{- $size := regexFind "[0-9]+$" $network | int -}}
{{- $bits := include "shop.bits" $network -}}
{{- include "shop.requireNetwork" (list $path $network) -}}
{{- range .except -}}
{{- include "shop.requireNetwork" (list $path .) -}}
{{- $own := include "shop.bits" . -}}
{{- if not (and (eq (len $own) (len $bits)) (gt (regexFind "[0-9]+$" . | int) $size) (hasPrefix (substr 0 $size $bits) $own)) -}}
{{- fail (printf "%s: %s is not inside %s, from which it is excepted" $path . $network) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity of Kubernetes as a number: `250m` is 0.25. */}}
{{- define "shop.quantity" -}}
{{- $text := kindIs "string" . | ternary . (toJson .) -}}
{{- if regexMatch "[eE][+-]?[0-9]+$" $text -}}
{{ float64 $text }}
{{- else -}}
{{- $units := dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 -}}
{{- $units = merge $units (dict "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0) -}}
{{ mulf (float64 (regexFind "^[0-9.]+" $text)) (index $units (regexFind "[A-Za-z]*$" $text)) }}
{{- end -}}
{{- end -}}

{{/* The folders of the chart's own volumes in a pod, by volume. Call with (list $ path), the path of its part of the values. */}}
{{- define "shop.folders" -}}
{{- $path := index . 1 -}}
{{- $folders := dict "tls" "/etc/shop/tls" -}}
{{- $authorities := list -}}
{{- if eq $path "edge" -}}
{{- $folders = merge $folders (dict "configuration" "/tmp" "public-tls" "/etc/shop/public-tls") -}}
{{- $authorities = list "traces" -}}
{{- else if eq $path "edge.globalRateLimit" -}}
{{- $_ := set $folders "limits" "/etc/limits/config" -}}
{{- $authorities = list "limits" -}}
{{- else -}}
{{- $_ := set $folders "secrets" "/run/secrets/shop" -}}
{{- $authorities = list "database" "traces" -}}
{{- if hasSuffix ".migrations" $path -}}
{{- $authorities = list "database" -}}
{{- $folders = omit $folders "tls" -}}
{{- else if hasSuffix ".worker" $path -}}
{{- $authorities = list "database" "redis" "traces" -}}
{{- $folders = omit $folders "tls" -}}
{{- end -}}
{{- end -}}
{{- $given := include "shop.authorities" (index . 0) | fromYaml -}}
{{- range $authorities -}}
{{- if (get $given .).existingSecret }}{{ $_ := set $folders (printf "%s-authority" .) (printf "/etc/shop/%s" .) }}{{ end -}}
{{- end -}}
{{- toYaml $folders -}}
{{- end -}}

{{/* Refuses a pod whose volumes, mounts and containers do not fit together or with the chart's own. Call with
     (list $ path pod). */}}
{{- define "shop.requireFitting" -}}
{{- $path := index . 1 -}}
{{- $pod := index . 2 -}}
{{- $ours := include "shop.folders" (list (index . 0) $path) | fromYaml -}}
{{- $volumes := keys $ours -}}
{{- $reserved := list "secrets" "tls" "public-tls" "configuration" "limits" "database-authority" "redis-authority" "limits-authority" "traces-authority" -}}
{{- range $pod.volumes -}}
{{- if has .name $reserved }}{{ fail (printf "%s: pod.volumes: the name %s is the chart's own: choose another" $path .name) }}{{ end -}}
{{- if has .name $volumes }}{{ fail (printf "%s: pod.volumes: the name %s is there twice" $path .name) }}{{ end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $folders := values $ours -}}
{{- range $pod.volumeMounts -}}
{{- $folder := clean .mountPath -}}
{{- if has $folder $folders }}{{ fail (printf "%s: pod.volumeMounts: something is mounted at %s already" $path $folder) }}{{ end -}}
{{- range values $ours -}}
{{- if hasPrefix (printf "%s/" $folder) . }}{{ fail (printf "%s: pod.volumeMounts: something is mounted at %s already, below %s" $path . $folder) }}{{ end -}}
{{- end -}}
{{- if not (has .name $volumes) }}{{ fail (printf "%s: pod.volumeMounts: there is no volume %s in pod.volumes" $path .name) }}{{ end -}}
{{- $folders = append $folders $folder -}}
{{- end -}}
{{- $containers := list "edge" "worker" "migrate" "rate-limiter" "limits" "health" "dns-cache" (trimPrefix "services." $path) -}}
{{- range concat ($pod.initContainers | default list) ($pod.sidecars | default list) -}}
{{- if has .name $containers }}{{ fail (printf "%s: pod.initContainers and pod.sidecars: there is a container %s already" $path .name) }}{{ end -}}
{{- $containers = append $containers .name -}}
{{- end -}}
{{- end -}}

{{/* Refuses a template in extraObjects with a field that charts do not have: helm would render `{{ .token }}`, which another
     controller is to read, as nothing. Call with the text. */}}
{{- define "shop.requireKnownFields" -}}
{{- $known := list "Capabilities" "Chart" "Files" "Release" "Subcharts" "Template" "Values" -}}
{{- $text := regexReplaceAll "{{-? *(\"[^\"]*\"|`[^`]*`) *-?}}" . "" -}}
{{- /* Within range and with a field is another's. */ -}}
{{- if not (regexMatch "{{-? *(range|with|define|block) " $text) -}}
{{- range $action := regexFindAll "{{.*?}}" $text -1 -}}
{{- range regexFindAll "(^|[^A-Za-z0-9_.)])[.][A-Za-z_][A-Za-z0-9_]*" (regexReplaceAll "\"[^\"]*\"" $action "") -1 -}}
{{- if not (has (regexFind "[A-Za-z0-9_]+$" .) $known) -}}
{{- fail (printf "extraObjects: helm would render %s as nothing; for another controller write {{ %q }}" $action $action) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses an object that makes a Secret for the migrations after them: at the first installation they would wait for it in
     vain. Call with (list $ object). */}}
{{- define "shop.requireBeforeMigrations" -}}
{{- $root := index . 0 -}}
{{- $object := index . 1 -}}
{{- $hook := $object.metadata.annotations | default dict -}}
{{- $isBefore := and (contains "pre-install" (get $hook "helm.sh/hook")) (lt (get $hook "helm.sh/hook-weight" | int) 0) -}}
{{- if and $root.Release.IsInstall (not $isBefore) (regexMatch "Secret|^OnePasswordItem$" $object.kind) -}}
{{- $makes := list $object.metadata.name (dig "spec" "target" "name" "" $object) (dig "spec" "destination" "name" "" $object) -}}
{{- range dig "spec" "secretObjects" list $object }}{{ $makes = append $makes .secretName }}{{ end -}}
{{- $jobs := include (print $root.Template.BasePath "/migrations.yaml") $root -}}
{{- range $name := compact $makes -}}
{{- if regexMatch (printf "[ {](name|secretName|secretProviderClass): \"?%s\"?[\\s,}]" (regexQuoteMeta $name)) $jobs -}}
{{- fail (printf "extraObjects: the migrations need %s, which this %s would make after them: annotate it with helm.sh/hook: pre-install,pre-upgrade and helm.sh/hook-weight: \"-20\"" $name $object.kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses settings of a pod of which each is legal and not all of them together. Call with (list path pod). */}}
{{- define "shop.requireRunnable" -}}
{{- $path := index . 0 -}}
{{- $pod := index . 1 -}}
{{- if and (eq ($pod.dnsPolicy | default "") "None") (not ($pod.dnsConfig).nameservers) -}}
{{- fail (printf "%s: pod.dnsPolicy: None needs pod.dnsConfig.nameservers" $path) -}}
{{- end -}}
{{- $container := $pod.containerSecurityContext | default dict -}}
{{- $context := $pod.securityContext | default dict -}}
{{- range $key := list "runAsUser" "runAsNonRoot" -}}
{{- if not (kindIs "invalid" (dig $key nil $container)) }}{{ $context = set (deepCopy $context) $key (get $container $key) }}{{ end -}}
{{- end -}}
{{- if and $context.runAsNonRoot (eq (get $context "runAsUser" | toString) "0") -}}
{{- fail (printf "%s: pod.securityContext and pod.containerSecurityContext: runAsUser is 0, which runAsNonRoot forbids" $path) -}}
{{- end -}}
{{- if eq (get $container "allowPrivilegeEscalation" | toString) "false" -}}
{{- if $container.privileged -}}
{{- fail (printf "%s: pod.containerSecurityContext: a privileged container needs allowPrivilegeEscalation" $path) -}}
{{- end -}}
{{- if has "CAP_SYS_ADMIN" (($container.capabilities).add | default list) -}}
{{- fail (printf "%s: pod.containerSecurityContext: CAP_SYS_ADMIN needs allowPrivilegeEscalation" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The variables for the address to listen on, the port of metrics, and the collector of traces. */}}
{{- define "shop.listening" -}}
{{- with include "shop.bothFamilies" . }}
- {name: HOST, value: {{ . | quote }}}
{{- end }}
- {name: METRICS_PORT, value: "9464"}
{{- with .Values.observability.otlpEndpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if .Values.observability.otlpAuthority.existingSecret }}
- {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /etc/shop/traces/ca.crt}
{{- end }}
{{- end -}}

{{/* `::`, on which a process listens on both families, if the values ask for IPv6. Else empty, because a node whose kernel
     has no IPv6 cannot listen on it. */}}
{{- define "shop.bothFamilies" -}}
{{- if or (has "IPv6" .Values.ipFamilies) (hasSuffix "DualStack" (.Values.ipFamilyPolicy | default "")) }}::{{ end -}}
{{- end -}}

{{/* The IP families of a Service. */}}
{{- define "shop.families" -}}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* The workers of a service, as a list in YAML: none without Redis. Call with (list $ name). */}}
{{- define "shop.workers" -}}
{{- if (index . 0).Values.redis.existingSecret }}
- {{ index . 1 }}-worker
{{- end }}
{{- end -}}

{{/* Spreads the pods of a component over nodes and zones, if there are several. Call with (list $ component pod). */}}
{{- define "shop.spread" -}}
{{- $selector := include "shop.selector" . -}}
topologySpreadConstraints:
{{- with (index . 2).topologySpreadConstraints }}
{{- toYaml . | nindent 2 }}
{{- else }}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway # a full or a small cluster is no reason to have fewer pods
    labelSelector:
      matchLabels: {{- $selector | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Rules of a network policy: to the cluster's DNS. */}}
{{- define "shop.dns" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* The same: to PostgreSQL. Call with (list $ port port …); a port 0 counts as none. */}}
{{- define "shop.toDatabase" -}}
- ports:
    {{- range without (rest .) 0 0.0 | uniq }}
    - {port: {{ . }}}
    {{- end }}
  {{- with (index . 0).Values.database.cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- end -}}

{{/* The issuer of the certificates between edge and services. */}}
{{- define "shop.issuer" -}}
{{- if .Values.certManager.createAuthority -}}
{name: {{ include "shop.fullname" . }}-authority, kind: Issuer}
{{- else -}}
{name: {{ required "certManager.issuer.name: name an issuer, or set createAuthority" .Values.certManager.issuer.name | quote }}, kind: {{ .Values.certManager.issuer.kind | quote }}, group: {{ .Values.certManager.issuer.group | quote }}}
{{- end -}}
{{- end -}}
