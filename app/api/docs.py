from flask import Blueprint


def blueprint(services): return Blueprint("docs", __name__)
