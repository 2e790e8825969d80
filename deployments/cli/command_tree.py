"""All commands: in which module each is, and what its page begins with.

A list of commands shows the first paragraph, the command's own page all of them. They are not
the modules' docstrings: to show a list must not need the modules' import.
"""

from __future__ import annotations

from collections.abc import Mapping

#: By group: each command's module, and its text.
TREE: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "": {
        "init": ("site", "Make what must be there before the first VM."),
        "steps": ("site", "Tell the catalogue of the fifty steps."),
        "serve": ("serve", "Run what the Prefect server asks for, on this host."),
        "audit": ("audit", "Find, and remove, what is astray on this host."),
        "env": ("environment", "Print what curl and prefect need, for a shell."),
        "reconcile": ("reconcile", "Bring to an end what stopped, and back what is lost."),
        "stats": ("stats", "Tell how long the steps of the last builds took."),
    },
    "vm": {
        "create": ("vm_create", "Create a VM, and draw its fifty steps."),
        "list": ("vm_views", "List the VMs."),
        "show": ("vm_views", "Show a VM."),
        "steps": ("vm_views", "Show how far each of its fifty steps is."),
        "ssh": ("vm_login", "Log in to it."),
        "console": ("vm_login", "Print what its serial console has said."),
        "delete": ("vm_runs", "Delete VMs."),
        "start": ("vm_runs", "Start one that is off."),
        "attach-interface": ("vm_interfaces", "Plug it into a network more."),
        "detach-interface": ("vm_interfaces", "Unplug it from a network."),
        "set-interface": ("vm_interfaces", "Set groups and port security of its port."),
        "attach-volume": ("vm_volumes", "Plug a volume into it, also a new one."),
        "detach-volume": ("vm_volumes", "Unplug a volume from it."),
        "resume": ("vm_runs", "Go on with its build where it stopped."),
        "rollback": ("vm_runs", "Undo a build that did not get to its end."),
    },
    "vm snapshot": {
        "create": (
            "vm_snapshots",
            "Take a snapshot of a VM's root disk.\n\n"
            "Running or off. Its volumes are not a part of it; a VM whose disk is encrypted can "
            "have none.",
        ),
        "list": ("vm_snapshots", "List a VM's snapshots."),
        "revert": (
            "vm_snapshots",
            "Bring a VM back to a snapshot; what was written since is lost.\n\n"
            "With the memory in the snapshot the guest goes on as it was; else it starts from its "
            "disk, if it ran. The snapshot stays, and so do later ones. Volumes stay as they are.",
        ),
        "delete": (
            "vm_snapshots",
            "Delete a snapshot; what was written since stays.\n\n"
            "The VM stays as it is, and runs on meanwhile.",
        ),
    },
    "network": {
        "create": ("network_create", "Make a network with one subnet."),
        "list": ("networks", "List the networks."),
        "show": ("networks", "Show a network."),
        "delete": ("networks", "Delete a network in which there is no VM any more."),
    },
    "router": {
        "create": ("routers", "Make a router without any interface."),
        "list": ("routers", "List the routers."),
        "show": ("routers", "Show a router."),
        "add-interface": ("routers", "Put it into a network."),
        "remove-interface": ("routers", "Take it out of a network."),
        "set-gateway": ("routers", "Connect it to the outside."),
        "clear-gateway": ("routers", "Cut it off from the outside."),
        "set-routes": ("routers", "Set its static routes."),
        "delete": ("routers", "Delete a router."),
    },
    "floating-ip": {
        "create": ("floating_ips", "Take an address of an external network."),
        "list": ("floating_ips", "List the floating IPs."),
        "attach": ("floating_ips", "Let it lead to a VM."),
        "detach": ("floating_ips", "Let it lead nowhere."),
        "delete": ("floating_ips", "Give it back."),
    },
    "security-group": {
        "create": ("security_groups", "Make a group that lets nothing in."),
        "list": ("security_groups", "List the security groups."),
        "show": ("security_groups", "Show a group with its rules."),
        "add-rule": ("security_groups", "Let something pass, at once."),
        "remove-rule": ("security_groups", "Let something pass no more, at once."),
        "delete": ("security_groups", "Delete a group in which there is no VM."),
    },
    "image": {
        "build": ("images", "Build an image by a recipe."),
        "recipes": ("image_recipes", "List the recipes that images can be built by."),
        "import": (
            "image_import",
            "Import an image from a file or a URL.\n\n"
            "Raw, qcow2, VMDK, VDI or VHDX; also packed by gzip, xz or zstd.",
        ),
        "install": (
            "image_install",
            "Install an image from an installer's medium.\n\n"
            "Unattended, in a machine without network, on an empty disk; it ends when the "
            "installer switches the machine off.",
        ),
        "edit": (
            "image_files",
            "Make an image from another one by changing files in it.\n\n"
            "Nothing is booted. VMs of the other one are not touched.",
        ),
        "check": (
            "image_files",
            "Check an image's files without booting it.\n\n"
            "Exits 0 where no point failed, 3 where one did; the report is kept with the image.",
        ),
        "capture": (
            "image_trials",
            "Make an image of a VM's root disk, running or off.\n\n"
            "The VM goes on as it was. What makes it one certain machine is taken out: machine "
            "id, host keys, leases, cloud-init's state, network names, login keys, logs.",
        ),
        "certify": (
            "image_trials",
            "Boot an image, and test it from inside and outside.\n\n"
            "Exits 0 where it passed, 3 where it did not; the certificate is kept with the image. "
            "The trial VM is deleted, whatever happens.",
        ),
        "list": ("images", "List the images."),
        "show": ("images", "Show an image: what it is, and what was made from it."),
        "set": ("image_catalogue", "Set what is said of an image; only what is given."),
        "deactivate": (
            "image_catalogue",
            "Let no new VM be made from an image.\n\nThose that there are go on.",
        ),
        "activate": ("image_catalogue", "Let new VMs be made from an image again."),
        "save": (
            "image_save",
            "Save an image as a file: as it is, or as raw or qcow2.\n\n"
            "For admins only. The file is there whole or not at all; an encrypted image stays so.",
        ),
        "share": ("image_catalogue", "Let one more tenant use an image."),
        "unshare": ("image_catalogue", "Let a tenant use an image no more.\n\nIts VMs stay."),
        "delete": ("images", "Delete an image that no VM is made from."),
    },
    "flavor": {
        "create": (
            "flavors",
            "Make a flavor; for admins only.\n\n"
            "What is not given has no limit. One that is there, and the same, is kept.",
        ),
        "list": ("flavors", "List the flavors."),
        "show": ("flavors", "Show a flavor."),
        "delete": ("flavors", "Delete a flavor; VMs keep theirs. For admins only."),
    },
    "tenant": {
        "create": ("tenants", "Make a tenant."),
        "list": ("tenants", "List the tenants."),
        "show": ("tenants", "Show a tenant with its tokens and its quota."),
        "disable": ("tenants", "Refuse its requests from now on."),
        "enable": ("tenants", "Let its requests in again."),
        "token": ("tenants", "Make a token for it, which is shown once."),
        "revoke": ("tenants", "Make a token stand for nobody."),
        "certificates": ("tenants", "Let it use certified images only, or all."),
        "quota": ("tenants", "Show or set how much it may hold."),
    },
    "key": {
        "create": ("keys", "Record a key pair, or make one."),
        "list": ("keys", "List the key pairs."),
    },
}
HELP = {
    "": "Virtual machines in the fifty steps that OpenStack takes.",
    "vm": "Virtual machines.",
    "vm snapshot": "Snapshots of VMs.",
    "network": "Networks.",
    "router": "Routers.",
    "floating-ip": "Addresses outside that lead to VMs.",
    "security-group": "Security groups: what may pass to and from VMs.",
    "image": "Images.",
    "flavor": "Flavors: the sizes that VMs come in.",
    "tenant": "Tenants, their tokens and their quota.",
    "key": "Key pairs for logging in to VMs.",
}
