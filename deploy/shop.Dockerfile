# The example shop under gunicorn, for compose.yaml.
FROM python:3.11-slim-bookworm
# The same number as Hostler's user: gunicorn's socket is open to its owner and group alone.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin shop \
    && install -d -o shop -g shop /run/shop
COPY examples/shop/requirements.txt /srv/shop/
RUN pip install --no-cache-dir -r /srv/shop/requirements.txt
COPY examples/shop /srv/shop
COPY deploy/gunicorn.conf.py /etc/gunicorn.conf.py
WORKDIR /srv/shop
USER 10001:10001
CMD ["gunicorn", "--config", "/etc/gunicorn.conf.py", "shop.wsgi"]
