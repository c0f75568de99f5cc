"""Keys of a Compose service that have no counterpart here, each with the reason that is told."""

from __future__ import annotations

_ROOT = "a right of the container that deploy-code does not hand out"
_KERNEL = "a setting of the kernel that deploy-code does not touch"
_SHARES = "limits are whole: resources.cpu_cores, memory_mb and pids"
_ALONE = "every container has its own"
_EDIT = "for work on the source code, not for running it"

REASONS: dict[str, str] = {
    "container_name": "containers are called PROJECT-SERVICE-rREVISION-INDEX; other services use the service's name",
    "hostname": "others reach it by the service's name",
    "domainname": "others reach it by the service's name",
    "links": "services reach each other by name",
    "external_links": "containers of other projects are not in this network",
    "volumes_from": "name the volumes in both services",
    "platform": "the image must be for this machine",
    "runtime": "the engine's own runtime runs it",
    "stdin_open": "nobody types at a service",
    "tty": "nobody types at a service",
    "attach": "logs of all services are kept",
    "annotations": "labels are kept, annotations are not",
    "label_file": "write the labels into labels",
    "ulimits": _KERNEL,
    "sysctls": _KERNEL,
    "oom_score_adj": _KERNEL,
    "oom_kill_disable": _KERNEL,
    "cgroup": _KERNEL,
    "cgroup_parent": _KERNEL,
    "blkio_config": _KERNEL,
    "storage_opt": _KERNEL,
    "isolation": "of Windows",
    "credential_spec": "of Windows",
    "devices": _ROOT + "; GPUs are resources.gpu_count",
    "device_cgroup_rules": _ROOT,
    "security_opt": _ROOT,
    "group_add": _ROOT + "; user may be name:group",
    "userns_mode": _ROOT,
    "pid": _ALONE,
    "ipc": _ALONE,
    "uts": _ALONE,
    "mac_address": "addresses are given out by the runtime",
    "dns_search": "name servers can be set, search domains cannot",
    "dns_opt": "name servers can be set, their options cannot",
    "cpu_shares": _SHARES,
    "cpu_count": _SHARES,
    "cpu_percent": _SHARES,
    "cpuset": _SHARES,
    "cpu_rt_period": _SHARES,
    "cpu_rt_runtime": _SHARES,
    "memswap_limit": _SHARES,
    "mem_swappiness": _SHARES,
    "develop": _EDIT,
    "post_start": "no command runs in a container besides its own; see hooks",
    "pre_stop": "no command runs in a container besides its own; see hooks",
    "provider": "what runs is an image",
    "models": "what runs is an image",
    "use_api_socket": "mount the engine's socket as a volume",
}

TOP: dict[str, str] = {
    "models": "what runs is an image",
}
"""The same for keys of the file itself."""

BUILD: dict[str, str] = {
    "cache_from": "layers are kept by the engine",
    "cache_to": "layers are kept by the engine",
    "no_cache": "layers are kept by the engine",
    "pull": "base images are fetched when they are missing",
    "labels": "built images have deploy-code's own labels",
    "tags": "built images have a name of deploy-code's",
    "network": "a build has the engine's usual network",
    "extra_hosts": "a build knows the names that the engine knows",
    "shm_size": "of the build only",
    "isolation": "of Windows",
    "secrets": "a build here gets no secrets",
    "ssh": "a build here gets no keys",
    "platforms": "images are built for this machine",
    "privileged": "a build here has no such rights",
    "entitlements": "a build here has no such rights",
    "ulimits": _KERNEL,
    "additional_contexts": "there is one context",
}
