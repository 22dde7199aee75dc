# JupyterLab with the workbench's packages, for the compose file and the devcontainer beside this.
# The workbench itself is not in here: its checkout is mounted.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
RUN apt-get update -qq && \
    apt-get install -qq -y --no-install-recommends git make iproute2 libgomp1 >/dev/null && \
    rm -rf /var/lib/apt/lists/*
# Where pip is to look besides, such as an index of packages without CUDA, which take less space.
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /opt/install
COPY pyproject.toml README.md ./
COPY environments/constraints.txt environments/
COPY core_scenarios core_scenarios
# Of the package only the name: what it needs is installed, and its code comes with the checkout.
RUN mkdir workbench && touch workbench/__init__.py && \
    python3 -m pip install --no-cache-dir --root-user-action ignore \
        --constraint environments/constraints.txt '.[test]' && \
    python3 -m pip uninstall -q -y --root-user-action ignore federated-nas-workbench
EXPOSE 8888
