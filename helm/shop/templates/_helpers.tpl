{{/* A service as it is meant: serviceDefaults with what the service itself says. Call with (list $ name). */}}
{{- define "shop.service" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- mustMergeOverwrite (deepCopy $root.Values.serviceDefaults) (deepCopy (index $root.Values.services $name | default dict)) | toYaml -}}
{{- end -}}

{{/* The image of a service or of the edge. Call with (list $ name). */}}
{{- define "shop.image" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $digest := index $root.Values.image.digests $name -}}
{{ $root.Values.image.registry }}/{{ $name }}{{ if $digest }}@{{ $digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* Whom a name stands for in certificates: services are known by the names of their packages. */}}
{{- define "shop.identity" -}}
{{ . | replace "-" "_" }}
{{- end -}}

{{/* Call with (list $ component). */}}
{{- define "shop.selector" -}}
app.kubernetes.io/name: shop
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Call with (list $ component). */}}
{{- define "shop.labels" -}}
{{ include "shop.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Values.image.tag | default (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end -}}

{{/* What every pod has: Pod Security "restricted", no token, where it runs. Call with (list $ component). */}}
{{- define "shop.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ index . 1 }}
automountServiceAccountToken: false
enableServiceLinks: false # else every Service of the namespace is in the environment
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001 # so that it can read its secrets
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $root.Values.pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* What every container may: nothing. */}}
{{- define "shop.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where metrics are served, and where traces go. */}}
{{- define "shop.telemetry" -}}
- {name: METRICS_PORT, value: "9464"}
{{- with .Values.observability.otlpEndpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{/* The relays and consumers, as a list in YAML. Call with (list $ name) for those of one service. */}}
{{- define "shop.workers" -}}
{{- if (index . 0).Values.redis.existingSecret }}
- {{ index . 1 }}-relay
- {{ index . 1 }}-consume
{{- end }}
{{- end -}}

{{/* Pods of a component on different nodes and in different zones, where there are some. Call with (list $ component). */}}
{{- define "shop.spread" -}}
topologySpreadConstraints:
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway # a full or a small cluster is no reason to have fewer pods
    labelSelector:
      matchLabels: {{- include "shop.selector" $ | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Which issuer makes the certificates between edge and services. */}}
{{- define "shop.issuer" -}}
{{- if .Values.certManager.createAuthority -}}
{name: shop-authority, kind: Issuer}
{{- else -}}
{name: {{ required "certManager.issuer.name: name an issuer, or set createAuthority" .Values.certManager.issuer.name }}, kind: {{ .Values.certManager.issuer.kind }}}
{{- end -}}
{{- end -}}
