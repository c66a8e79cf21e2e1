"""
gunicorn settings that fit Hostler: gunicorn --config gunicorn.conf.py shop.wsgi

None of them is needed; gunicorn's defaults work. Each line below says what it gains. The matching upstream is

    upstreams:
      app: { endpoints: ["unix:/run/shop/gunicorn.sock"], workers: 4 }
"""

import os

# A unix socket: nobody else can connect, and gunicorn believes the X-Forwarded-Proto that comes over it.
bind = os.environ.get("GUNICORN_BIND", "unix:/run/shop/gunicorn.sock")

# Owner and group alone. Hostler runs under another user? Make it a member of this one's group.
umask = 0o007

# One request per process. `workers` of Hostler's upstream must be the same number: it lets through as many requests as
# there are workers, and keeps the others in its waiting room.
worker_class = "sync"
workers = int(os.environ.get("WEB_CONCURRENCY", "4"))

# Hostler waits 65 s for a response head (timeouts.head). Keep this one shorter: then it is gunicorn that ends a view which
# hangs, and its log says which one.
timeout = 30

# How long running requests may take when gunicorn stops or reloads. Requests that come in the meantime wait at Hostler.
graceful_timeout = 30

# Hostler sends as many connections as there are workers, so the kernel's queue stays short. What does not fit waits at
# Hostler, which is fair between clients and drops those that have left.
backlog = 64

# Workers show that they live by touching a file: in memory, since a slow disk would make them look dead.
worker_tmp_dir = "/dev/shm"

# A fresh process now and then keeps slow leaks harmless. The jitter keeps workers from leaving at the same time.
max_requests = 5000
max_requests_jitter = 500

# Hostler's access log has every request, those included that never reached a worker.
accesslog = None

# The default path is shared by all gunicorns of one user.
control_socket_disable = True
