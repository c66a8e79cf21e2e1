"""A Flask site that hands its downloads to the server in front of it: USE_X_SENDFILE, and nothing else."""

import os

from flask import Flask, send_from_directory

application = Flask(__name__)
application.config["USE_X_SENDFILE"] = True


@application.get("/download/<path:name>")
def download(name):
    return send_from_directory(os.environ["DOWNLOADS"], name, as_attachment=True)


@application.get("/quick")
def quick():
    return "quick"
