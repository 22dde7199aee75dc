# The image of a client: Python and the libraries that a node needs, no compiler, no notebook.
# `make image` builds it with the wheels that it has fetched, and needs no network in here. The
# base may be any system with bash, coreutils and the Python that the wheels are for, such as one
# made by debootstrap where no registry can be reached. The workbench's own code is not in here:
# containers see that of their notebook, read-only, so that the two are always the same.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
COPY wheels /wheels
# pip runs from its own wheel, so that the base needs none. What only compilers and tests of torch
# need is a quarter of it.
RUN set -e; \
    pip=$(ls /wheels/pip-*.whl); \
    python3 "$pip/pip" install --no-compile --no-cache-dir --no-index --find-links /wheels \
        --root-user-action ignore --target /opt/packages --requirement /wheels/requirements.txt; \
    cd /opt/packages; \
    find torch/bin -type f ! -name torch_shm_manager -delete; \
    rm -rf torch/include torch/test torch/share bin; \
    find . -path '*/tests/*' -name '*.py' -delete; \
    python3 -m compileall -q -j 0 -x py312 .

FROM ${BASE}
COPY --from=packages /opt/packages /opt/packages
RUN echo 'workbench:x:10001:10001::/tmp:/bin/sh' >> /etc/passwd; \
    echo 'workbench:x:10001:' >> /etc/group; \
    mkdir -p /opt/workbench/workbench /opt/workbench/core_scenarios /share
ENV PYTHONPATH=/opt/workbench:/opt/packages \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    FLWR_HOME=/tmp/flower \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1
USER 10001:10001
WORKDIR /tmp
CMD ["tail", "-f", "/dev/null"]
