"""Values in both directions: legal values render, nonsense is refused with a reason."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from chassis.settings import constants
from docs import settings_page
from tests.helm.chart import CHART, helm, objects, refusal, values_file
from tests.helm.test_chart import OTHERS, VERSIONS

# Every case stands on this: what must be set.
_BASE: Final = "image: {registry: registry.example/shop}\n"
_LOCKED: Final = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
_PROXY: Final = f"{{name: proxy, image: proxy.example/sql:1, {_LOCKED}}}"
_REDIS: Final = "redis: {existingSecret: shop-redis}\n"

_LIMITER: Final = "edge: {globalRateLimit: {enabled: true, redis: {address: r:6379}}}\n"

_SECRET: Final = "extraObjects: [{apiVersion: KIND, metadata: {name: shop-user-svc}}]"

LEGAL: Final = {
    # Images
    "tag that YAML takes for a number": ("image: {registry: r.example/shop, tag: 20261128}", "edge:20261128"),
    "tag too long for a label": (f"image: {{registry: r.example/shop, tag: {'a' * 70}}}", f"user-svc:{'a' * 70}"),
    "tag that ends as no label may": ("image: {registry: r.example/shop, tag: v1-}", "edge:v1-"),
    "registry on this machine": ("image: {registry: localhost/shop}", "localhost/shop/edge:0.1.0"),
    "global registry": ("global: {imageRegistry: mirror.example:5000}", "mirror.example:5000/shop/edge"),
    "a registry without a path, in a mirror": (
        "image: {registry: 'registry.example:5000'}\nglobal: {imageRegistry: mirror.example}",
        "image: mirror.example/edge:",
        ["edge"],
    ),
    "a registry by a name without a dot, in a mirror": (
        "image: {registry: localhost/shop}\nglobal: {imageRegistry: 'mirror:5000/hub'}",
        "image: mirror:5000/hub/shop/edge:",
    ),
    "a path of Docker Hub, in a mirror": (
        "image: {registry: example/shop}\nglobal: {imageRegistry: mirror.example}",
        "image: mirror.example/example/shop/edge:",
    ),
    "a registry with a long path": (
        "image: {registry: 'R.example:5000/a/b__c/d--e.f'}",
        "R.example:5000/a/b__c/d--e.f/edge",
    ),
    "a version of the limiter alone": (_LIMITER.replace("redis:", "image: 'r:5000/l:1', redis:"), "image: r:5000/l:1"),
    "global pull secrets": ("global: {imagePullSecrets: [mirror]}", "imagePullSecrets:\n      - name: mirror"),
    "pull secrets as in a pod": (
        "image: {registry: r.example/shop, pullSecrets: [{name: mirror}]}",
        "imagePullSecrets:\n      - name: mirror",
    ),
    "digest": (f"image: {{registry: r.example/s, digests: {{edge: 'sha256:{'a' * 64}'}}}}", "/edge@sha256:aaaa"),
    "mirror of the limiter's image": (
        "global: {imagePullSecrets: [a], imageRegistry: mirror.example}\n" + _LIMITER,
        "image: mirror.example/envoyproxy/ratelimit:3fb70258@sha256:",
    ),
    # The rate limiter
    "a Redis without TLS": (_LIMITER.replace("r:6379", "r:6379, tls: false"), "--rate-limiter=rate-limiter:8081"),
    "nodes of the limiter's Redis with ports of their own": (
        "edge: {globalRateLimit: {enabled: true, env: {REDIS_TYPE: cluster}, redis: {address: 'a:6379,b:6380'}}}",
        "- port: 6379\n    - port: 6380",
    ),
    "Sentinels of the limiter": (
        "edge: {globalRateLimit: {enabled: true, env: {REDIS_TYPE: sentinel}, redis: {address: 'm,a:26379,b:26379'}}}",
        "value: m,a:26379,b:26379",
    ),
    # Resources
    "no limit of CPU": ("serviceDefaults: {resources: {limits: {cpu: null}}}", "cpu: 250m"),
    "no limits": ("edge: {resources: {limits: null}}", "cpu: 250m"),
    "fractions": ("serviceDefaults: {resources: {limits: {memory: 1.5Gi}}}", "memory: 1.5Gi"),
    "decimal megabytes": ("serviceDefaults: {resources: {limits: {memory: 512M}}}", "memory: 512M"),
    "bytes": ("serviceDefaults: {resources: {limits: {memory: 536870912}}}", "memory: 536870912"),
    "terabytes": ("edge: {resources: {limits: {memory: 1Ti}}}", "memory: 1Ti"),
    "exponents": ("edge: {resources: {limits: {memory: 2e9}}}", "memory: "),
    "huge pages and devices": (
        "serviceDefaults: {resources: {limits: {hugepages-2Mi: 2Mi, example.com/gpu: 1}}}",
        "example.com/gpu: 1",
    ),
    "an address as a network": ("database: {cidrs: [10.1.2.3/32, 0.0.0.0/0]}", "cidr: 10.1.2.3/32"),
    "every taint": ("pod: {tolerations: [{operator: Exists}]}", "operator: Exists", ["edge"]),
    "ephemeral storage": ("edge: {resources: {limits: {ephemeral-storage: 1Gi}}}", "ephemeral-storage: 1Gi"),
    "no limit of CPU for one service": (
        "services: {user-svc: {resources: {limits: {cpu: null}}}}",
        "resources:\n          limits:\n            memory: 512Mi\n          requests:",
        ["user-svc", "user-svc-migrations"],
    ),
    "CPU as a number": ("serviceDefaults: {resources: {limits: {cpu: 1}}}", "cpu: 1"),
    # Environment
    "env of a service and its migrations": (
        "services: {user-svc: {env: {SSL_CERT_FILE: /ca.crt}}}",
        "name: SSL_CERT_FILE",
        ["user-svc", "user-svc-migrations"],
    ),
    "env of everything": (
        _REDIS + "env: {HTTP_PROXY: 'http://p:1'}",
        "name: HTTP_PROXY",
        ["edge", "order-svc-migrations", "order-svc-worker", "user-svc"],
    ),
    "env of the edge": ("edge: {env: {TZ: UTC}}", "name: TZ\n          value: UTC", ["edge"]),
    "env of a migration": ("serviceDefaults: {migrations: {env: {A: b}}}", "name: A", ["user-svc-migrations"]),
    "env in small letters": ("serviceDefaults: {env: {http_proxy: 'http://p:1'}}", "name: http_proxy"),
    "env as a number": ("serviceDefaults: {env: {A: 1000000}}", "value: '1000000'"),
    "env as a boolean": ("serviceDefaults: {env: {A: true}}", "value: 'true'"),
    "env from a Secret": (
        "serviceDefaults: {env: {A: {valueFrom: {secretKeyRef: {name: s, key: k}}}}}",
        "secretKeyRef:\n              key: k\n              name: s",
    ),
    "env from the pod": (
        "env: {NODE: {valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}}",
        "fieldPath: spec.nodeName",
    ),
    "env that one service does without": (
        "env: {A: b}\nservices: {user-svc: {env: {A: null}}}",
        "name: A",
        ["edge", "order-svc"],
    ),
    "envFrom": (
        "envFrom: [{secretRef: {name: s}}]",
        "secretRef:\n            name: s",
        ["edge", "user-svc-migrations"],
    ),
    # Pods
    "affinity": (
        "pod: {affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: []}}}",
        "podAntiAffinity:",
        ["edge", "user-svc", "user-svc-migrations"],
    ),
    "tolerations of one service": (
        "services: {user-svc: {pod: {tolerations: [{key: a, operator: Exists, effect: NoSchedule}]}}}",
        "operator: Exists",
        ["user-svc", "user-svc-migrations"],
    ),
    "labels of pods, on Jobs too": (
        "pod: {labels: {azure.workload.identity/use: 'true'}}",
        "azure.workload.identity/use: 'true'",
        ["edge", "user-svc-migrations"],
    ),
    "annotations of Jobs' pods": (
        "serviceDefaults: {migrations: {pod: {annotations: {sidecar.istio.io/inject: 'false'}}}}",
        "sidecar.istio.io/inject: 'false'",
        ["user-svc-migrations"],
    ),
    "annotations of Jobs": (
        "serviceDefaults: {migrations: {annotations: {argocd.argoproj.io/hook: PreSync}}}",
        "argocd.argoproj.io/hook: PreSync",
    ),
    "a taint for a minute": (
        "pod: {tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 60}]}",
        "tolerationSeconds: 60",
    ),
    "apart from each other": (
        (
            "pod: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z,"
            " labelSelector: {matchLabels: {a: b}}}]}, nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution:"
            " [{weight: 1, preference: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}]}}}"
        ),
        "topologyKey: z",
    ),
    "DNS of one's own": (
        "serviceDefaults: {pod: {dnsPolicy: None, dnsConfig: {nameservers: [10.0.0.10]}}}",
        "dnsPolicy: None",
        ["user-svc", "user-svc-migrations"],
    ),
    "another user in one container": ("edge: {pod: {containerSecurityContext: {runAsUser: 1000}}}", "runAsUser: 1000"),
    "a mount of a volume of the chart's": (
        "serviceDefaults: {pod: {volumeMounts: [{name: secrets, mountPath: /a}]}}",
        "mountPath: /a",
        ["user-svc", "user-svc-migrations"],
    ),
    "a mount beside the chart's": (
        "serviceDefaults: {pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: /run/secrets/a}]}}",
        "mountPath: /run/secrets/a",
        ["user-svc"],
    ),
    "spread": (
        (
            "pod: {topologySpreadConstraints: [{maxSkew: 2, topologyKey: z, whenUnsatisfiable: DoNotSchedule,"
            " labelSelector: {matchLabels: {a: b}}}]}"
        ),
        "maxSkew: 2",
    ),
    "users chosen by OpenShift": (
        "pod: {securityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}}",
        "securityContext:\n        runAsNonRoot: true\n        seccompProfile:",
    ),
    "a user of the operator's": ("pod: {securityContext: {runAsUser: 1000680000}}", "runAsUser: 1000680000"),
    "a writable root": (
        "edge: {pod: {containerSecurityContext: {readOnlyRootFilesystem: false}}}",
        "readOnlyRootFilesystem: false",
    ),
    "labels that a policy of the company wants": (
        "pod: {labels: {app.kubernetes.io/part-of: shop}}",
        "app.kubernetes.io/part-of: shop",
        ["edge", "user-svc-migrations"],
    ),
    "logs of migrations that are kept": (
        "serviceDefaults: {migrations: {annotations: {helm.sh/hook-delete-policy: before-hook-creation}}}",
        "helm.sh/hook-delete-policy: before-hook-creation\n",
        ["user-svc-migrations"],
    ),
    "fewer questions to DNS": (
        "pod: {dnsPolicy: ClusterFirst, dnsConfig: {options: [{name: ndots, value: '1'}]}}",
        "dnsPolicy: ClusterFirst",
        ["edge", "user-svc-migrations"],
    ),
    "a sandbox for containers": (
        "pod: {runtimeClassName: gvisor, schedulerName: mine, hostAliases: [{ip: 10.0.0.1, hostnames: [db.example]}]}",
        "runtimeClassName: gvisor",
        ["edge", "user-svc-migrations"],
    ),
    "volumes": (
        (
            "serviceDefaults: {pod: {volumes: [{name: ca, configMap: {name: ca}}],"
            " volumeMounts: [{name: ca, mountPath: /ca}]}}"
        ),
        "mountPath: /ca",
        ["order-svc", "user-svc-migrations"],
    ),
    "sidecars": (
        "serviceDefaults: {pod: {sidecars: [" + _PROXY + "]}}",
        "image: proxy.example/sql:1",
        ["user-svc"],
    ),
    "init containers": (
        "serviceDefaults: {pod: {initContainers: [" + _PROXY + "]}}",
        "initContainers:",
        ["user-svc", "user-svc-migrations"],
    ),
    "identities of a cloud": (
        "services: {user-svc: {pod: {serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:x'}}}}}",
        "eks.amazonaws.com/role-arn: arn:x",
    ),
    "accounts that exist": (
        "pod: {serviceAccount: {create: false, name: shop}}",
        "serviceAccountName: shop",
        ["edge", "user-svc-migrations"],
    ),
    "authority of the database": (
        _REDIS + "database: {authority: {existingSecret: rds-ca}}",
        "mountPath: /etc/shop/database",
        ["user-svc", "user-svc-migrations", "user-svc-worker"],
    ),
    "authority of Redis": (
        "redis: {existingSecret: r, authority: {existingSecret: ca, key: tls.crt}}",
        "mountPath: /etc/shop/redis",
        ["user-svc-worker", "order-svc-worker"],
    ),
    "annotations of all Deployments": (
        _REDIS + "deploymentAnnotations: {reloader.stakater.com/auto: 'true'}",
        "reloader.stakater.com/auto: 'true'\n    shop/replicas:",
        ["edge", "order-svc", "order-svc-worker", "user-svc"],
    ),
    "annotations of one Deployment that scales itself": (
        "edge: {deploymentAnnotations: {a: b}, autoscaling: {enabled: true}}",
        "annotations:\n    a: b\n  labels:",
    ),
    "annotations of a worker's Deployment": (
        _REDIS + "serviceDefaults: {deploymentAnnotations: {a: b}, worker: {deploymentAnnotations: {a: c}}}",
        "a: c\n    shop/replicas:",
        ["order-svc-worker", "user-svc-worker"],
    ),
    # Counts
    "a paused service": ("services: {order-svc: {replicas: 0}}", "replicas: 0"),
    "paused workers": (_REDIS + "serviceDefaults: {worker: {replicas: 0}}", "replicas: 0"),
    "a paused edge": ("edge: {replicas: 0}", "replicas: 0"),
    "migrations by hand": ("serviceDefaults: {migrations: {enabled: false}}", "kind: Deployment"),
    "CPU above what is requested": ("edge: {autoscaling: {enabled: true, targetCPU: 150}}", "averageUtilization: 150"),
    "scaling by memory": (
        (
            "edge: {autoscaling: {enabled: true, metrics: [{type: Resource, resource: {name: memory,"
            " target: {type: Utilization, averageUtilization: 80}}}]}}"
        ),
        "averageUtilization: 80",
    ),
    "slow scaling up": (
        "edge: {autoscaling: {enabled: true, behavior: {scaleUp: {stabilizationWindowSeconds: 60}}}}",
        "stabilizationWindowSeconds: 60",
    ),
    "a fast rollout": ("edge: {rollout: {maxSurge: 50%, maxUnavailable: 1, minReadySeconds: 0}}", "maxSurge: 50%"),
    "a budget": ("edge: {disruptionBudget: {maxUnavailable: 25%}}", "maxUnavailable: 25%"),
    "a budget of pods that stay": ("edge: {disruptionBudget: {minAvailable: 1}}", "minAvailable: 1"),
    "a budget of a share that stays": ("edge: {disruptionBudget: {minAvailable: 50%}}", "minAvailable: 50%"),
    "a budget of a share that rounds up to fewer than all": (
        "serviceDefaults: {disruptionBudget: {minAvailable: 66%}}",
        "minAvailable: 66%",
    ),
    "a budget that lets all pods go": ("edge: {disruptionBudget: {minAvailable: 0}}", "spec:\n  minAvailable: 0\n"),
    "a sidecar of a scaled pod": (
        "edge: {autoscaling: {enabled: true}, pod: {sidecars: [" + _PROXY + "]}}",
        "container: edge",
    ),
    "no budget": ("edge: {disruptionBudget: {enabled: false}}", "kind: Deployment"),
    # The way in
    "Ingress for every host": (
        "ingress: {enabled: true}\nedge: {trustedHops: 1}",
        "rules:\n  - http:\n",
    ),
    "Ingress for a wildcard": (
        "ingress: {enabled: true, hosts: ['*.shop.example', shop.example]}\nedge: {trustedHops: 1}",
        "- host: '*.shop.example'",
    ),
    "Ingress with TLS for several hosts": (
        "ingress: {enabled: true, tlsSecret: t, hosts: [a.example, b.example]}\nedge: {trustedHops: 2}",
        "tls:\n  - hosts:\n    - a.example\n    - b.example\n    secretName: t",
    ),
    "no hosts without cert-manager": ("edge: {hosts: []}", "kind: Deployment"),
    "a wildcard certificate": ("certManager: {enabled: true}\nedge: {hosts: ['*.shop.example']}", "*.shop.example"),
    "callers' addresses kept": ("edge: {service: {type: LoadBalancer}}", "externalTrafficPolicy: Local"),
    "callers' addresses lost": (
        "edge: {service: {type: LoadBalancer, externalTrafficPolicy: Cluster}}",
        "externalTrafficPolicy: Cluster",
    ),
    "a load balancer's class and sources": (
        (
            "edge: {service: {type: LoadBalancer, loadBalancerClass: service.k8s.aws/nlb,"
            " loadBalancerSourceRanges: [10.0.0.0/8]}}"
        ),
        "loadBalancerClass: service.k8s.aws/nlb\n  loadBalancerSourceRanges:\n  - 10.0.0.0/8",
    ),
    "a load balancer's address": (
        "edge: {service: {type: LoadBalancer, loadBalancerIP: 192.0.2.7}}",
        "loadBalancerIP: 192.0.2.7",
    ),
    "ports of the nodes": (
        "edge: {service: {type: NodePort, nodePorts: {http: 30080, https: 30443}}}",
        "nodePort: 30080",
    ),
    "two families of addresses": ("ipFamilyPolicy: PreferDualStack", "ipFamilyPolicy: PreferDualStack"),
    "the edge on two families": ("ipFamilyPolicy: RequireDualStack", "--address=::", ["edge"]),
    "IPv6 alone": ("ipFamilies: [IPv6]", "ipFamilies:\n  - IPv6", ["edge", "user-svc-headless"]),
    "processes on IPv6": (
        _REDIS + "ipFamilies: [IPv6, IPv4]\nipFamilyPolicy: PreferDualStack",
        "name: HOST\n          value: '::'",
        ["user-svc", "order-svc", "user-svc-worker", "order-svc-worker"],
    ),
    # Names
    "names that begin otherwise": ("fullnameOverride: staging", "name: staging-user-svc-headless"),
    "another name as label": ("nameOverride: stage", "app.kubernetes.io/name: stage", ["edge", "user-svc-migrations"]),
    # Certificates
    "an external issuer": (
        (
            "certManager: {enabled: true, createAuthority: false,"
            " issuer: {name: pca, kind: AWSPCAClusterIssuer, group: awspca.cert-manager.io}}"
        ),
        "group: awspca.cert-manager.io\n    kind: AWSPCAClusterIssuer",
    ),
    # Networks
    "IPv6": ("database: {cidrs: ['2001:db8::/32', '::/0', 'fd00::1/128']}", "2001:db8::/32"),
    "DNS of OpenShift": ("networkPolicy: {dnsPorts: [53, 5353]}", "port: 5353"),
    "migrations past a pooler": ("database: {port: 6432, directPort: 5432}", "- port: 6432\n    - port: 5432"),
    "a proxy of a cloud": (
        "networkPolicy: {egress: [{ports: [{port: 3307}]}]}",
        "port: 3307",
    ),
    "networks without some of theirs": (
        (
            "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: '::/0',"
            " except: ['fd00::/8']}}, {ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}}]}"
        ),
        "- 2001:db8:1::/48",
    ),
    "peers by expressions": (
        (
            "edge: {allowedFrom: [{namespaceSelector: {matchExpressions: [{key: a, operator: In, values: [b]},"
            " {key: c, operator: Exists}]}}]}"
        ),
        "operator: Exists",
    ),
    "a range of ports": ("networkPolicy: {egress: [{ports: [{port: 80, endPort: 90}]}]}", "endPort: 90"),
    # Observation
    "collector with a slash": (
        "observability: {otlpEndpoint: 'http://collector.monitoring:4317/'}",
        "--traces-to=collector.monitoring:4317\n",
    ),
    "collector with TLS": (
        "observability: {otlpEndpoint: 'https://collector.example:4317'}",
        "--traces-to=https://collector.example:4317",
        ["edge"],
    ),
    "collector with a private CA": (
        _REDIS + "observability: {otlpEndpoint: 'https://c:4317', otlpAuthority: {existingSecret: ca}}",
        "mountPath: /etc/shop/traces",
        ["edge", "user-svc", "user-svc-worker", "order-svc-worker"],
    ),
    "collector by IPv6": ("observability: {otlpEndpoint: 'http://[fd00::1]:4317'}", "--traces-to=[fd00::1]:4317"),
    "a share of calls by --set": (
        "observability: {otlpEndpoint: 'http://c:4317', traceSampling: '0.5'}",
        "--trace-sampling=0.5",
    ),
    "labels by which the operator finds rules": (
        "observability: {prometheusRule: {enabled: true, labels: {app.kubernetes.io/name: prometheus}}}",
        "app.kubernetes.io/name: prometheus",
    ),
    "severities of another team": (
        "observability: {prometheusRule: {enabled: true, severities: {page: ticket, ticket: P4}}}",
        "severity: P4",
    ),
    "a probe of two names": (
        (
            "observability: {probe: {enabled: true, prober: 'blackbox:9115', interval: 1m30s,"
            " targets: ['https://a.example/healthz', 'https://b.example:8443/healthz']}}"
        ),
        "https://b.example:8443/healthz",
    ),
    # Around it
    "a dependency with a condition": ("enabled: true", "kind: Deployment"),
    "values of the chart above": ("global: {anything: {goes: here}}", "kind: Deployment"),
    "objects beside it": (
        "extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: '{{ .Release.Name }}-x'}}]",
        "name: shop-x",
    ),
    "a Secret of the migrations before them": (
        (
            "extraObjects: [{apiVersion: v1, kind: Secret, metadata: {name: shop-user-svc, annotations:"
            " {helm.sh/hook: 'pre-install,pre-upgrade', helm.sh/hook-weight: '-20'}}}]"
        ),
        "helm.sh/hook-weight: '-20'",
    ),
    "a Secret that no migration needs": (
        "extraObjects: [{apiVersion: v1, kind: Secret, metadata: {name: edge-public-tls}}]",
        "kind: Secret",
    ),
    "a Secret of a system without migrations": (
        "serviceDefaults: {migrations: {enabled: false}}\n" + _SECRET.replace("KIND", "v1, kind: Secret"),
        "kind: Secret",
    ),
    "a template for another controller": (
        "extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: 'x{{ \"{{ .token }}\" }}'}}]",
        "a: x{{ .token }}",
    ),
    "a template with a scope of its own": (
        (
            "extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data:"
            " {a: '{{ with .Values.image }}{{ .registry }}{{ end }}', b: '{{ (index .Values.edge.hosts 0) }}'}}]"
        ),
        "a: registry.example/shop",
    ),
}
"""Values, the text that the manifests must have, and in which workloads, if it matters."""

NONSENSE: Final = {
    "serviceDefaults: {replica: 3}": "replica",
    "serviceDefaults: {replicas: three}": "integer",
    "serviceDefaults: {replicas: -1}": "minimum",
    "serviceDefaults: {poolSize: 3}": "minimum",
    "serviceDefaults: {worker: {poolSize: 5}}": "poolSize",
    "serviceDefaults: {relay: {replicas: 2}}": "the relay and the consumer are one process now",
    "services: {order-svc: {consume: {env: {A: b}}}}": "consume, in serviceDefaults or services.order-svc",
    "unknown: 1": "unknown",
    # Images
    "image: {registry: ''}": "image.registry: set the registry and path of the images",
    "image: {tag: latest}": "tag",
    "image: {registry: 'https://ghcr.io/x'}": "registry",
    "image: {registry: ghcr.io/Example/Shop}": "registry",
    "image: {registry: Example/shop}": "registry",
    "image: {registry: 'a:::b//c'}": "registry",
    "image: {registry: ghcr.io/x/}": "registry",
    "image: {registry: 'ghcr.io/x:1'}": "registry",
    "global: {imageRegistry: 'https://mirror.example'}": "imageRegistry",
    "global: {imageRegistry: mirror.example/}": "imageRegistry",
    "edge: {globalRateLimit: {image: 'a:::b//c:1'}}": "image",
    "edge: {globalRateLimit: {image: 'https://r.example/a:1'}}": "image",
    "image: {tag: 1234e56}": "tag",
    "image: {tag: a b}": "tag",
    "image: {digests: {edge: sha256:abc}}": "digests",
    f"image: {{digests: {{egde: 'sha256:{'a' * 64}'}}}}": "image.digests.egde: there is no such image",
    # Environment
    "services: {user-svc: {env: {DATABASE_URL: postgresql://a:b@c/d}}}": "env.DATABASE_URL: put it into the Secret",
    "services: {user-svc: {env: {REDIS_URL: redis://a:b@c/0}}}": "env.REDIS_URL: put it into the Secret",
    "env: {KEYS_SECRET: x}": "env.KEYS_SECRET: put it into the Secret",
    "env: {DATABASE_DIRECT_URL: postgresql://a:b@c/d}": "env.DATABASE_DIRECT_URL: put it into the Secret",
    "serviceDefaults: {env: {METRICS_PORT: 1}}": "env.METRICS_PORT: the chart sets it itself",
    "serviceDefaults: {env: {SECRETS_DIR: /x}}": "env.SECRETS_DIR: the chart sets it itself",
    "serviceDefaults: {env: {DATABASE_POOL_SIZE: 9}}": "env.DATABASE_POOL_SIZE: the chart sets it itself",
    "serviceDefaults: {env: {TLS_ALLOWED_PEERS: edge}}": "env.TLS_ALLOWED_PEERS: the chart sets it itself",
    "serviceDefaults: {env: {HEALTH_PORT: 0}}": "env.HEALTH_PORT: the chart sets it itself",
    "serviceDefaults: {env: {PORT: 1}}": "env.PORT: the chart sets it itself",
    "env: {HOST: 127.0.0.1}": "env.HOST: the chart sets it itself",
    "env: {TOKEN_ISSUER: x}": "env.TOKEN_ISSUER: this is no setting",
    _REDIS + "serviceDefaults: {worker: {env: {RELAY_BATCH: 9}}}": "env.RELAY_BATCH: this is no setting",
    "env: {OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4317'}": "set observability.otlpEndpoint",
    "serviceDefaults: {migrations: {env: {SECRETS_DIR: /x}}}": "env.SECRETS_DIR",
    "serviceDefaults: {env: {A: [1]}}": "env",
    "serviceDefaults: {env: {1A: x}}": "1A",
    # Resources
    "serviceDefaults: {resources: {requests: {cpu: 1}}}": "the request of cpu, 1, is above its limit, 500m",
    "edge: {resources: {requests: {memory: 2Gi}}}": "the request of memory, 2Gi, is above its limit, 1536Mi",
    _REDIS + "serviceDefaults: {worker: {resources: {requests: {memory: 1e9}}}}": "the request of memory",
    "edge: {resources: {limits: {memory: 256Mi}}}": "less than 1280Mi, which Envoy needs",
    "edge: {resources: {limits: {memory: 1GB}}}": "memory",
    "edge: {resources: {limits: {cpu: -1}}}": "cpu",
    "edge: {resources: {limits: {memroy: 2Gi}}}": "memroy",
    "serviceDefaults: {resources: {limits: {hugepages-2M: 2Mi}}}": "hugepages-2M",
    "serviceDefaults: {resources: {claims: [{name: gpu}]}}": "claims",
    # Counts
    _REDIS + "serviceDefaults: {worker: {replicas: 12}}": "connections, more than",
    "serviceDefaults: {replicas: 12}": "connections, more than database.maxConnections",
    "serviceDefaults: {rollout: {maxSurge: 100%}}\ndatabase: {maxConnections: 100}": "connections, more than",
    "serviceDefaults: {autoscaling: {enabled: true, maxReplicas: 12}}": "more than database.maxConnections",
    "serviceDefaults: {autoscaling: {enabled: true, minReplicas: 9}}": "minReplicas is above maxReplicas",
    "edge: {autoscaling: {enabled: true, minReplicas: 9, maxReplicas: 3}}": "minReplicas is above maxReplicas",
    "edge: {rollout: {minReadySeconds: 600}}": "minReadySeconds",
    # The rate limiter
    "edge: {globalRateLimit: {enabled: true}}": "edge.globalRateLimit.redis.address: name its Redis",
    "edge: {globalRateLimit: {enabled: true, redis: {address: redis}}}": "address",
    "edge: {globalRateLimit: {enabled: true, redis: {address: 'redis://r:6379'}}}": "address",
    "edge: {globalRateLimit: {enabled: true, redis: {address: 'user:secret@r:6379'}}}": "address",
    "edge: {globalRateLimit: {enabled: true, redis: {address: 'r:6379'}, env: {HOST: 0.0.0.0}}}": "the chart sets it",
    "edge: {globalRateLimit: {redis: {cidrs: [10.20.1.1/24]}}}": "10.20.1.1/24 is an address in a network",
    "edge: {globalRateLimit: {image: docker.io/envoyproxy/ratelimit}}": "image",
    "edge: {globalRateLimit: {rateLimit: 5}}": "rateLimit",
    "edge: {rollout: {maxSurge: 0}}": "no pod could ever be replaced",
    "edge: {disruptionBudget: {maxUnavailable: 0}}": "edge.disruptionBudget: no pod could ever be evicted",
    "serviceDefaults: {disruptionBudget: {maxUnavailable: 0%}}": "disruptionBudget: no pod could ever be evicted",
    "edge: {replicas: 1, disruptionBudget: {minAvailable: 1}}": "edge.disruptionBudget: no pod could ever be evicted",
    "edge: {disruptionBudget: {minAvailable: 100%}}": "edge.disruptionBudget: no pod could ever be evicted",
    "edge: {autoscaling: {enabled: true, minReplicas: 2}, disruptionBudget: {minAvailable: 2}}": "ever be evicted",
    # Kubernetes rounds a share up.
    "serviceDefaults: {disruptionBudget: {minAvailable: 67%}}": "disruptionBudget: no pod could ever be evicted",
    "edge: {disruptionBudget: {minAvailable: 60%}}": "edge.disruptionBudget: no pod could ever be evicted",
    "edge: {replicas: 1, disruptionBudget: {minAvailable: 1%}}": "edge.disruptionBudget: no pod could ever be evicted",
    "edge: {autoscaling: {enabled: true, minReplicas: 4}, disruptionBudget: {minAvailable: 76%}}": "ever be evicted",
    "edge: {autoscaling: {enabled: true}, resources: {requests: {cpu: null}, limits: {cpu: null}}}": (
        "edge.autoscaling: set resources.requests.cpu"
    ),
    "edge: {autoscaling: {metrics: [{type: Resurce, resource: {}}]}}": "metrics",
    "edge: {autoscaling: {behavior: {scaleDown: {stabilisationWindowSeconds: 1}}}}": "behavior",
    # Services and callers
    "services: {users-svc: {replicas: 1}}": "services.users-svc: there is no such service; the services are",
    "services: {user-svc: {callers: [edge]}}": "services.user-svc.callers: order-svc must be among them, because it",
    "services: {order-svc: {callers: [edge, example-svc]}}": "there is no service example-svc",
    "services: {order-svc: {callers: [user-svc]}}": "the edge must be among them",
    "services: {user-svc: null}": "services.user-svc: it cannot be left out",
    "services: {order-svc: null, user-svc: {callers: [edge]}}": "services.order-svc: it cannot be left out",
    # Networks
    "database: {cidrs: [999.1.1.1/99]}": "cidrs",
    "database: {cidrs: [1/9]}": "cidrs",
    "database: {cidrs: [10.0.0.0/33]}": "cidrs",
    "redis: {cidrs: ['fd00::/129']}": "cidrs",
    "database: {cidrs: [10.0.0.0/8, 10.0.0.5/8]}": "database.cidrs: 10.0.0.5/8 is an address in a network",
    "redis: {cidrs: [10.20.1.1/24]}": "redis.cidrs: 10.20.1.1/24 is an address",
    "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.1.0/16]}}]}": "edge.allowedFrom: 10.1.1.0/16",
    "observability: {scrapers: [{ipBlock: {cidr: 1.2.3.4/31}}, {ipBlock: {cidr: 1.2.3.5/31}}]}": "1.2.3.5/31",
    "redis: {cidrs: ['fd00::1::/64']}": "cidrs",
    "edge: {allowedFrom: [{namespaceSelektor: {}}]}": "allowedFrom",
    "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/99}}]}": "allowedFrom",
    "observability: {scrapers: [{podSelector: {matchLabel: {a: b}}}]}": "scrapers",
    "networkPolicy: {dnsPorts: [70000]}": "dnsPorts",
    "ipFamilies: [IPv5]": "ipFamilies",
    "ipFamilies: [IPv4, IPv4]": "ipFamilies",
    "ipFamilyPolicy: SingleStack\nipFamilies: [IPv6, IPv4]": "ipFamilyPolicy: SingleStack has one family",
    "networkPolicy: {egress: [{too: []}]}": "egress",
    "networkPolicy: {egress: [{ports: [{port: 0}]}]}": "egress",
    # The edge
    "edge: {corsOrigins: ['*']}": "corsOrigins",
    "edge: {corsOrigins: [https://shop.example/path]}": "corsOrigins",
    "edge: {extraArgs: [--environment=compose]}": "extraArgs",
    "edge: {hosts: ['shop_.example']}": "hosts",
    "edge: {hosts: ['a.*.example']}": "hosts",
    "edge: {service: {loadBalancerSourceRanges: [10.0.0.0/8]}}": "are for the type LoadBalancer",
    "edge: {service: {type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/64]}}": "loadBalancerSourceRanges",
    "edge: {service: {type: NodePort, loadBalancerClass: a/b}}": "are for the type LoadBalancer",
    "edge: {service: {type: NodePort, loadBalancerSourceRanges: [10.0.0.0/8]}}": "are for the type LoadBalancer",
    "edge: {service: {loadBalancerIP: 192.0.2.7}}": "are for the type LoadBalancer",
    "edge: {service: {type: LoadBalancer, loadBalancerIP: 192.0.2.256}}": "loadBalancerIP",
    "edge: {service: {nodePorts: {http: 30080}}}": "nodePorts are for the types LoadBalancer and NodePort",
    "edge: {service: {type: NodePort, nodePorts: {http: 30080, https: 30080}}}": "http and https need a port each",
    "edge: {hosts: [10.0.0.1]}": "hosts",
    "edge: {trustedHops: 1}\ningress: {enabled: true, hosts: [10.0.0.1]}": "hosts",
    "edge: {trustedHops: 1}\ngateway: {enabled: true, parentRefs: [{name: g, sectionNames: s}]}": "sectionNames",
    "ingress: {enabled: true}": "edge.trustedHops: set at least 1 behind",
    "gateway: {enabled: true, parentRefs: [{name: g}]}": "edge.trustedHops: set at least 1 behind",
    "edge: {trustedHops: 1}\ngateway: {enabled: true}": "name a Gateway",
    "edge: {trustedHops: 1}\ngateway: {enabled: true, parentRefs: [{name: g}], hostnames: [a b]}": "hostnames",
    "certManager: {enabled: true, createAuthority: false}": "name an issuer",
    "certManager: {enabled: true}\nedge: {hosts: []}": "edge.hosts: name the hosts",
    # Observation
    "observability: {otlpEndpoint: collector:4317}": "otlpEndpoint",
    "env: {OTEL_EXPORTER_OTLP_CERTIFICATE: /ca.crt}": "set observability.otlpEndpoint and otlpAuthority",
    "observability: {podMonitors: {enabled: true}}": "observability.scrapers: set the peers that scrape metrics",
    "observability: {probe: {enabled: true}}": "observability.probe: set prober",
    "observability: {probe: {enabled: true, prober: b.m:9115, targets: [shop.example]}}": "targets",
    "observability: {prometheusRule: {runbookUrl: docs/runbook.md}}": "runbookUrl",
    "observability: {prometheusRule: {severities: {critical: page}}}": "severities",
    "observability: {traceSampling: 101}": "traceSampling",
    "observability: {traceSampling: half}": "traceSampling",
    "observability: {probe: {interval: 30}}": "interval",
    "observability: {probe: {prober: 'b.m:99999'}}": "prober",
    "edge: {globalRateLimit: {redis: {address: 'r:99999'}}}": "address",
    # Pods
    "pod: {volumes: [{name: tls, emptyDir: {}}]}": "pod.volumes: the name tls is the chart's own: choose another",
    "edge: {pod: {volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]}}": "the name a is there twice",
    "pod: {volumes: [{name: a, emptyDirr: {}}]}": "emptyDirr",
    "pod: {volumeMounts: [{name: a, mountPath: /a}]}": "pod.volumeMounts: there is no volume a in pod.volumes",
    "pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: /etc/shop/tls/}]}": "at /etc/shop/tls already",
    "edge: {pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: /tmp}]}}": "mounted at /tmp already",
    "pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: a}]}": "mountPath",
    "pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: /a, readonly: true}]}": "readonly",
    "services: {user-svc: {pod: {sidecars: [{name: user-svc, image: a}]}}}": "there is a container user-svc already",
    "pod: {initContainers: [{name: a, image: b}], sidecars: [{name: a, image: b}]}": "there is a container a already",
    "pod: {sidecars: [{name: a, image: b, comand: [x]}]}": "comand",
    "pod: {securityContext: {runAsUsr: 1}}": "runAsUsr",
    "pod: {securityContext: {runAsUser: root}}": "runAsUser",
    "pod: {containerSecurityContext: {readOnlyRootFileSystem: true}}": "readOnlyRootFileSystem",
    "pod: {containerSecurityContext: {capabilities: {drop: ALL}}}": "drop",
    "pod: {affinity: {nodeAffinity: {required: {}}}}": "nodeAffinity",
    "pod: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: Never}]}": "whenUnsatisfiable",
    "pod: {dnsConfig: {options: [ndots:1]}}": "dnsConfig",
    "env: {A: {valueFrom: {secretKeyReff: {name: a, key: b}}}}": "env",
    "env: {A: {valueFrom: {secretKeyRef: {name: a}}}}": "env",
    "envFrom: [{secretRef: a}]": "envFrom",
    "envFrom: [{secretReff: {name: a}}]": "envFrom",
    "pod: {tolerations: [{key: a, operater: Exists}]}": "tolerations",
    # What the API server refuses, after the migrations have run
    "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}]}": "allowedFrom",
    "networkPolicy: {egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}": "egress",
    "networkPolicy: {egress: [{ports: [{endPort: 90}]}]}": "egress",
    "networkPolicy: {egress: [{ports: [{port: http, endPort: 90}]}]}": "egress",
    "networkPolicy: {egress: [{ports: [{port: 90, endPort: 80}]}]}": "egress: endPort 80 is below port 90",
    "edge: {allowedFrom: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]}": "allowedFrom",
    "edge: {allowedFrom: [{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}]}": "allowedFrom",
    "edge: {allowedFrom: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]}": "values",
    "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}": "11.0.0.0/16 is not inside 10.0.",
    "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}": "10.0.0.0/8 is not inside",
    "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [0.0.0.0/0]}}]}": "0.0.0.0/0 is not inside",
    "edge: {allowedFrom: [{ipBlock: {cidr: '2001:db8::/32', except: ['2001:db9::/48']}}]}": "2001:db9::/48 is not",
    "edge: {allowedFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: ['2001:db8::/32']}}]}": "2001:db8::/32 is not inside",
    "networkPolicy: {egress: [{to: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}": "egress: 10.0.0.1/8 is an address",
    "database: {cidrs: ['2001:db8::1/64']}": "database.cidrs: 2001:db8::1/64 is an address in a network",
    "database: {cidrs: ['fd00::/7']}": "database.cidrs: fd00::/7 is an address in a network",
    "pod: {tolerations: [{key: a, operator: Exists, tolerationSeconds: 60}]}": "tolerations",
    "pod: {tolerations: [{key: a, operator: Exists, effect: NoSchedule, tolerationSeconds: 60}]}": "tolerations",
    "pod: {tolerations: [{key: a, operator: Exists, value: b}]}": "tolerations",
    (
        "pod: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule,"
        " matchLabelKeys: [a]}]}"
    ): "topologySpreadConstraints",
    (
        "pod: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway,"
        " minDomains: 2}]}"
    ): "topologySpreadConstraints",
    "pod: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{}]}}}": "topologyKey",
    (
        "pod: {affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution:"
        " [{podAffinityTerm: {topologyKey: z}}]}}}"
    ): "weight",
    "pod: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {}}}}": "nodeSelectorTerms",
    "pod: {dnsPolicy: None}": "pod.dnsPolicy: None needs pod.dnsConfig.nameservers",
    "edge: {pod: {dnsPolicy: None, dnsConfig: {searches: [a]}}}": "edge: pod.dnsPolicy: None needs",
    "edge: {autoscaling: {metrics: [{type: Pods, resource: {}}]}}": "metrics",
    "pod: {securityContext: {runAsUser: 0}}": "runAsUser is 0, which runAsNonRoot forbids",
    "edge: {pod: {containerSecurityContext: {runAsUser: 0}}}": "edge: pod.securityContext and",
    "pod: {containerSecurityContext: {privileged: true}}": "a privileged container needs allowPrivilegeEscalation",
    "pod: {containerSecurityContext: {capabilities: {add: [CAP_SYS_ADMIN]}}}": "CAP_SYS_ADMIN needs",
    "edge: {pod: {volumeMounts: [{name: secrets, mountPath: /a}]}}": "there is no volume secrets",
    "pod: {volumeMounts: [{name: database-authority, mountPath: /a}]}": "there is no volume database-authority",
    "serviceDefaults: {migrations: {pod: {volumeMounts: [{name: tls, mountPath: /a}]}}}": "there is no volume tls",
    "pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: /}]}": "mountPath",
    "pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: //}]}": "mountPath",
    "serviceDefaults: {pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: /run/secrets}]}}": (
        "something is mounted at /run/secrets/shop already, below /run/secrets"
    ),
    "edge: {pod: {volumes: [{name: a}], volumeMounts: [{name: a, mountPath: /etc/}]}}": "already, below /etc",
    "pod: {priorityClassName: Very_Important}": "priorityClassName",
    "pod: {priorityClassName: a.-b}": "priorityClassName",
    "pod: {tolerations: [{effect: NoSchedule}]}": "tolerations",
    "pod: {tolerations: [{key: a b, operator: Exists}]}": "tolerations",
    "redis: {existingSecret: a..b}": "existingSecret",
    "observability: {otlpEndpoint: 'http://c:0'}": "otlpEndpoint",
    "observability: {otlpEndpoint: 'http://c:65536'}": "otlpEndpoint",
    "edge: {service: {type: LoadBalancer, loadBalancerClass: 'a b'}}": "loadBalancerClass",
    "edge: {corsOrigins: ['https://a b']}": "corsOrigins",
    "pod: {annotations: {'a b': c}}": "a b",
    "deploymentAnnotations: {'a b': c}": "a b",
    "deploymentAnnotations: {a: 1}": "deploymentAnnotations",
    "edge: {deploymentAnnotations: {shop/replicas: '7'}}": "shop/replicas: the chart sets it itself",
    "serviceDefaults: {migrations: {deploymentAnnotations: {a: b}}}": "deploymentAnnotations",
    "pod: {labels: {a: 'b c'}}": "labels",
    f"pod: {{labels: {{a: {'b' * 64}}}}}": "labels",
    "pod: {labels: {app.kubernetes.io/name: x}}": "pod.labels.app.kubernetes.io/name: the chart sets it itself",
    "pod: {affinity: {podAntiAffinty: {}}}": "affinity",
    "pod: {serviceAccount: {name: shop}}": "several components would create shop",
    "extraObjects: [{metadata: {name: x}}]": "extraObjects",
    # Helm makes them after the migrations, which would wait for them.
    _SECRET.replace(
        "KIND", "v1, kind: Secret"
    ): "the migrations need shop-user-svc, which this Secret would make after",
    _SECRET.replace("KIND", "external-secrets.io/v1, kind: ExternalSecret"): "helm.sh/hook: pre-install,pre-upgrade",
    _SECRET.replace("KIND", "bitnami.com/v1alpha1, kind: SealedSecret"): "helm.sh/hook: pre-install,pre-upgrade",
    _SECRET.replace("KIND", "onepassword.com/v1, kind: OnePasswordItem"): "helm.sh/hook: pre-install,pre-upgrade",
    (
        "extraObjects: [{apiVersion: external-secrets.io/v1, kind: ExternalSecret, metadata: {name: x},"
        " spec: {target: {name: shop-order-svc}}}]"
    ): "the migrations need shop-order-svc",
    (
        "extraObjects: [{apiVersion: csi.x-k8s.io/v1, kind: SecretProviderClass, metadata: {name: vault}}]\n"
        "serviceDefaults: {pod: {volumes: [{name: a, csi: {volumeAttributes: {secretProviderClass: vault}}}]}}"
    ): "the migrations need vault",
    (
        "extraObjects: [{apiVersion: v1, kind: Secret, metadata: {name: shop-user-svc, annotations:"
        " {helm.sh/hook: pre-install}}}]"
    ): 'helm.sh/hook-weight: "-20"',
    # Helm renders what it does not know as nothing.
    (
        "extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: 'x{{ .token }}'}}]"
    ): 'helm would render {{ .token }} as nothing; for another controller write {{ "{{ .token }}" }}',
    "extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: '{{ $.a }}'}}]": "as nothing",
    "extraObjects: [{apiVersion: v1, kind: ConfigMap}]": "metadata",
}
"""Values, and the text of the refusal."""


@functools.cache
def _rendered(values: str) -> tuple[dict[str, Any], ...]:
    with values_file(with_base(values)) as file:
        done = helm("template", "shop", str(CHART), "--values", str(file))
    assert done.returncode == 0, done.stderr
    return tuple(objects(done.stdout))


def with_base(values: str) -> str:
    """Return the values with what must be set beside them."""
    merged = yaml.safe_load(_BASE)
    for key, value in yaml.safe_load(values).items():
        merged[key] = {**merged[key], **value} if key in merged else value
    return yaml.safe_dump(merged)


@pytest.mark.parametrize("case", LEGAL)
def test_an_operator_may_set_it(case: str) -> None:
    values, expected, *workloads = LEGAL[case]

    manifests = _rendered(values)

    texts = {each["metadata"]["name"]: "" for each in manifests}
    for each in manifests:
        texts[each["metadata"]["name"]] += yaml.safe_dump(each, width=1000)
        if each["kind"] not in OTHERS:
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)
    for name in workloads[0] if workloads else ():
        assert expected in texts[name], name
    assert any(expected in text for text in texts.values())


@pytest.mark.parametrize(("values", "why"), NONSENSE.items())
def test_nonsense_is_refused_with_its_reason(values: str, why: str) -> None:
    assert why in refusal(with_base(values))


def test_an_operator_may_let_a_container_be_root() -> None:
    # Against the standard "restricted", of which the API server warns, so it is no case above.
    asked = "edge: {pod: {securityContext: {runAsNonRoot: false}, containerSecurityContext: {runAsUser: 0}}}"

    assert any(each["metadata"]["name"] == "edge" for each in _rendered(asked))


def test_every_version_makes_a_valid_label() -> None:
    for values in ("image: {registry: r/s, tag: v1-}", f"image: {{registry: r/s, tag: {'a' * 70}}}"):
        for each in _rendered(values):
            version = each["metadata"]["labels"]["app.kubernetes.io/version"]
            assert len(version) <= 63
            assert version[-1].isalnum()


def test_the_chart_refuses_every_variable_that_the_services_refuse() -> None:
    [listed] = re.findall(r"\$constants := list (.+) }}", (CHART / "templates" / "refusals.yaml").read_text())
    sections = settings_page.sections().values()

    names = re.findall(r'"(\w+)"', listed)
    known = {name for section in sections for name in constants(section)}
    assert names == sorted(names)
    assert known <= set(names)
    # Of services that call the user service. In a tree without one they stay for the next.
    assert {name for name in set(names) - known if not name.startswith("USER_SERVICE_")} == set()
