{{/* The spec of the PrometheusRule: the alerts and recording rules of files/rules.yaml, for this release only. */}}
{{- define "shop.rules" -}}
{{- $options := .Values.observability.prometheusRule -}}
{{- $text := .Files.Get "files/rules.yaml" | replace "namespace=~\".*\"" (printf "namespace=%q" .Release.Namespace) -}}
{{- $text = regexReplaceAll "absent\\((\\w+){namespace=\"[^\"]*\"" $text (printf "absent(${1}{%s" (include "shop.ofInstallation" .)) -}}
{{- $text = $text | replace "https://shop.example/docs/runbook.md" $options.runbookUrl -}}
{{- $text = $text | replace "10737418240" (int64 $options.outboxBytes | toString) -}}
{{- $processes := dict "ServiceMissing" "serve" "WorkerMissing" "worker" -}}
{{- $groups := list -}}
{{- range $group := (fromYaml $text).groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- $command := get $processes (get $rule "alert") -}}
{{- if hasKey $rule "alert" -}}
{{- $_ := set $rule.labels "severity" (get $options.severities $rule.labels.severity) -}}
{{- end -}}
{{- if $command -}}
{{- $_ := set $rule "expr" (include "shop.missing" (list $ $command)) -}}
{{- end -}}
{{- /* Without Redis there are no workers, so none is missing. */ -}}
{{- if or (ne $command "worker") $.Values.redis.existingSecret -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
{{- end -}}
{{- dict "groups" $groups | toYaml -}}
{{- end -}}

{{/* The matchers of an installation: a second one in its namespace, of another release or another alias, must not hide that
     this one is missing. Only the chart's own monitors set the label. */}}
{{- define "shop.ofInstallation" -}}
namespace={{ .Release.Namespace | quote }}{{ if .Values.observability.podMonitors.enabled }}, installation={{ include "shop.fullname" . | quote }}{{ end }}
{{- end -}}

{{/* An expression for each service that has no process with this command. Call with (list $ command). */}}
{{- define "shop.missing" -}}
{{- $root := index . 0 -}}
{{- $absent := list -}}
{{- range $name := keys $root.Values.services | sortAlpha -}}
{{- $labels := printf "%s, job=%q, command=%q" (include "shop.ofInstallation" $root) (include "shop.identity" $name) (index $ 1) -}}
{{- $absent = append $absent (printf "absent(shop_process_info{%s})" $labels) -}}
{{- end -}}
{{- join "\nor " $absent -}}
{{- end -}}
