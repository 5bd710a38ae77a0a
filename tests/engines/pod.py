"""What a container of a Job would be started with: kubernetes-python pod.py FILE INDEX

Prints JSON: the words of the command, with $(NAME) filled in as the kubelet does it, and the environment.
"""

import json
import re
import sys

import yaml

UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def number(quantity):
    """A quantity of Kubernetes', of the kinds that our files have."""
    quantity = str(quantity)
    return int(quantity[:-2]) * UNITS[quantity[-2:]] if quantity[-2:] in UNITS else int(quantity)


with open(sys.argv[1], encoding="utf-8") as file:
    job = yaml.safe_load(file)
(container,) = job["spec"]["template"]["spec"]["containers"]
env = {}
if job["spec"].get("completionMode") == "Indexed":
    env["JOB_COMPLETION_INDEX"] = sys.argv[2]
for var in container.get("env", []):
    if "value" in var:
        env[var["name"]] = var["value"]
    else:
        field = var["valueFrom"]["resourceFieldRef"]
        kind, name = field["resource"].split(".")
        # rounded up
        env[var["name"]] = str(-(-number(container["resources"][kind][name]) // number(field.get("divisor", "1"))))
words = container["command"] + container.get("args", [])
filled = [re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda m: env.get(m[1], m[0]), word) for word in words]
print(json.dumps({"words": filled, "env": env, "spec": job["spec"]}))
