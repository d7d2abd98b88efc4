"""Builds the test images from Debian packages and our small programs, and serves them to registries.

    build.py build DIR              blobs and manifests into DIR (kept from run to run)
    build.py push DIR HOST:PORT     everything into a registry that speaks plain HTTP
    build.py archive DIR NAME FILE  one image as a docker archive, for `coracle image import`

Needs mmdebstrap and busybox-static. An image is described by one row of IMAGES.
"""
import gzip
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Left out of root file systems: documentation and what the programs do not load.
SKIPPED = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info", "./var/cache", "./usr/share/perl")
PASSWD = """root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
redis:x:101:101::/var/lib/redis:/usr/sbin/nologin
postgres:x:102:102::/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = "root:x:0:\ntty:x:5:\nwww-data:x:33:\nredis:x:101:\npostgres:x:102:\nnogroup:x:65534:\n"
NGINX = """user www-data; daemon off; worker_processes 1; error_log /dev/stderr notice; pid /run/nginx.pid;
events { worker_connections 64; }
http { access_log /dev/stdout; server { listen 80; root /usr/share/nginx/html; index index.html; } }
"""
WELCOME = "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n"

# Debian packages of each root file system; an empty list means busybox alone.
ROOTS = {
    "busybox": [],
    "nginx": ["nginx-light"],
    "redis": ["redis-server"],
    "postgres": ["postgresql-15"],
    "python": ["python3", "python3-redis", "python3-psycopg2"],
}
STATIC = {"etc/passwd": PASSWD, "etc/group": GROUP}


def program(name, path, mode=0o755):
    return {path: (open(os.path.join(HERE, "programs", name)).read(), mode)}


# name -> (root, files, configuration)
IMAGES = {
    "library/busybox:latest": ("busybox", {}, {"Cmd": ["sh"]}),
    "library/busybox:1.35": ("busybox", {}, {"Cmd": ["sh"]}),
    **{
        f"library/nginx:{tag}": (
            "nginx",
            {"etc/nginx/nginx.conf": NGINX, "usr/share/nginx/html/index.html": WELCOME, "etc/image-tag": tag + "\n"},
            {"Entrypoint": ["/usr/sbin/nginx"], "Cmd": ["-g", "pcre_jit off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"},
        )
        for tag in ("latest", "alpine", "1.9.1")
    },
    "library/redis:latest": (
        "redis",
        {},
        {"Cmd": ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""], "User": "redis", "WorkingDir": "/data", "ExposedPorts": {"6379/tcp": {}}},
    ),
    "library/postgres:latest": (
        "postgres",
        program("postgres.sh", "usr/local/bin/docker-entrypoint.sh"),
        {"Entrypoint": ["docker-entrypoint.sh"], "User": "postgres", "Env": [PATH, "PGDATA=/tmp/data"], "ExposedPorts": {"5432/tcp": {}}},
    ),
    "library/hostile:latest": ("python", program("hostile.py", "app/hostile.py"), {"Entrypoint": ["python3", "/app/hostile.py"]}),
    **{
        f"kodekloud/examplevotingapp_{name}:{tag}": (
            "python",
            program(name + ".py", "app/app.py"),
            {"Entrypoint": ["python3", "/app/app.py"], "WorkingDir": "/app", "ExposedPorts": {"80/tcp": {}}},
        )
        for name in ("vote", "result", "worker")
        for tag in ("v1", "latest")
    },
}
ALIASES = {"library/redis:alpine": "library/redis:latest", "library/postgres:9.4": "library/postgres:latest", "library/postgres:15-alpine": "library/postgres:latest"}


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def store(directory, data):
    digest = sha(data)
    path = os.path.join(directory, digest.replace(":", "-"))
    if not os.path.exists(path):
        with open(path + ".tmp", "wb") as out:
            out.write(data)
        os.rename(path + ".tmp", path)
    return digest


def add_file(tar, path, content, mode=0o644):
    data = content.encode()
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def add_directory(tar, path, mode=0o755):
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def add_busybox(tar):
    tar.add("/bin/busybox", "bin/busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            link = tarfile.TarInfo("bin/" + applet)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)


def root_layer(name, packages):
    """The uncompressed layer of a root file system, without device nodes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        seen = set()
        if packages:
            raw = subprocess.run(
                ["mmdebstrap", "-q", "--variant=extract", "--include=" + ",".join(packages), "bookworm", "-"],
                capture_output=True,
            )
            if raw.returncode != 0:
                sys.exit(f"mmdebstrap for {name}: {raw.stderr.decode()}")
            with tarfile.open(fileobj=io.BytesIO(raw.stdout)) as source:
                for entry in source:
                    skipped = entry.name.startswith(SKIPPED) or "libLLVM" in entry.name or "/__pycache__" in entry.name
                    if skipped or entry.isdev() or entry.name[2:] in STATIC:
                        continue
                    seen.add(entry.name)
                    tar.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
        if "./bin" not in seen:
            for path in ("bin", "usr/bin", "usr/sbin", "etc", "var/lib", "run", "root"):
                add_directory(tar, path)
        for path in ("tmp", "data", "var/log/nginx", "var/lib/nginx", "proc", "sys", "dev", "run"):
            add_directory(tar, path, 0o1777 if path in ("tmp", "data") else 0o755)
        add_busybox(tar) if not packages else add_shell(tar, seen)
        for path, content in STATIC.items():
            add_file(tar, path, content)
    return out.getvalue()


def add_shell(tar, seen):
    """busybox for what the packages did not bring."""
    tar.add("/bin/busybox", "bin/busybox" if "./usr/bin" not in seen else "usr/bin/busybox")
    for applet in ("sh", "ls", "cat", "wget", "ps", "sleep", "grep", "env", "id", "hostname", "nslookup", "mkdir", "chown", "rm", "kill", "echo", "touch", "mknod", "date", "tail", "head", "tar"):
        if f"./bin/{applet}" in seen or f"./usr/bin/{applet}" in seen:
            continue
        link = tarfile.TarInfo("usr/bin/" + applet)
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    if not any(name in seen for name in ("./bin/sh", "./bin/dash")) and "./usr/bin" in seen:
        # What programs run by system(3) and what scripts begin with.
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/busybox"
        tar.addfile(link)


def file_layer(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in files.items():
            text, mode = content if isinstance(content, tuple) else (content, 0o644)
            add_file(tar, path, text, mode)
    return out.getvalue()


def compressed(directory, layer):
    data = gzip.compress(layer, compresslevel=1, mtime=0)
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": store(directory, data), "size": len(data)}, sha(layer)


def build(directory):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.abspath(__file__), "rb") as me:
        version = sha(me.read() + b"".join(open(os.path.join(HERE, "programs", p), "rb").read() for p in sorted(os.listdir(os.path.join(HERE, "programs")))))
    index_path = os.path.join(directory, "index.json")
    if os.path.exists(index_path) and json.load(open(index_path)).get("version") == version:
        return
    roots = {name: compressed(directory, root_layer(name, packages)) for name, packages in ROOTS.items()}
    images = {}
    for name, (root, files, config) in IMAGES.items():
        layers = [roots[root]] + ([compressed(directory, file_layer(files))] if files else [])
        body = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Env": [PATH]} | config,
            "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in layers]},
            "history": [],
        }
        data = json.dumps(body).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": store(directory, data), "size": len(data)},
            "layers": [descriptor for descriptor, _ in layers],
        }
        images[name] = store(directory, json.dumps(manifest).encode())
    images |= {alias: images[name] for alias, name in ALIASES.items()}
    with open(index_path + ".tmp", "w") as out:
        json.dump({"version": version, "images": images}, out)
    os.rename(index_path + ".tmp", index_path)


def blob(directory, digest):
    with open(os.path.join(directory, digest.replace(":", "-")), "rb") as source:
        return source.read()


def request(method, url, data=None, headers=None):
    call = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    with urllib.request.urlopen(call, timeout=60) as answer:
        return answer.headers


def push(directory, registry):
    base = f"http://{registry}/v2"
    pushed = set()
    for name, digest in json.load(open(os.path.join(directory, "index.json")))["images"].items():
        repository, tag = name.split(":")
        manifest = json.loads(blob(directory, digest))
        for part in [manifest["config"], *manifest["layers"]]:
            if (repository, part["digest"]) in pushed:
                continue
            mount = next((r for r, d in pushed if d == part["digest"]), None)
            query = f"?mount={part['digest']}&from={mount}" if mount else ""
            headers = request("POST", f"{base}/{repository}/blobs/uploads/{query}", b"")
            location = headers.get("Location")
            if not (mount and "/uploads/" not in location):
                separator = "&" if "?" in location else "?"
                request("PUT", f"{location}{separator}digest={part['digest']}", blob(directory, part["digest"]), {"Content-Type": "application/octet-stream"})
            pushed.add((repository, part["digest"]))
        request("PUT", f"{base}/{repository}/manifests/{tag}", blob(directory, digest), {"Content-Type": manifest["mediaType"]})


def archive(directory, name, path):
    manifest = json.loads(blob(directory, json.load(open(os.path.join(directory, "index.json")))["images"][name]))
    with tarfile.open(path, "w") as tar:
        def add(entry, data):
            info = tarfile.TarInfo(entry)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        config = manifest["config"]["digest"].split(":")[1] + ".json"
        add(config, blob(directory, manifest["config"]["digest"]))
        layers = []
        for layer in manifest["layers"]:
            entry = layer["digest"].split(":")[1] + "/layer.tar"
            add(entry, gzip.decompress(blob(directory, layer["digest"])))
            layers.append(entry)
        short = name.removeprefix("library/")
        add("manifest.json", json.dumps([{"Config": config, "RepoTags": [short], "Layers": layers}]).encode())


if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["help"]
    commands = {"build": build, "push": push, "archive": archive}
    if command not in commands:
        sys.exit(__doc__)
    commands[command](*arguments)
