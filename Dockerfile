# One image for all use cases.
#   docker build -t ai4sim .
#   docker run -it --rm ai4sim ./script.sh wf_gwd
# On NVIDIA hardware build on a CUDA base; PyPI's torch for Linux brings the CUDA libraries it needs:
#   docker build -t ai4sim --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
# A smaller image for CPUs alone: --build-arg PIP_EXTRA_INDEX_URL=<an index with torch's CPU builds>
ARG BASE=python:3.12-slim
FROM ${BASE}

# the Python images have all that is needed, CUDA base images have no Python
RUN command -v python3 > /dev/null || ( \
    apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/* )

# numbers, not names: Kubernetes checks runAsNonRoot against them
RUN useradd --create-home --uid 10001 --user-group ai4sim
USER 10001:10001
WORKDIR /home/ai4sim/collection
RUN python3 -m venv /home/ai4sim/nox && /home/ai4sim/nox/bin/pip install --no-cache-dir "nox[uv]"
ENV PATH=/home/ai4sim/nox/bin:$PATH \
    MPLBACKEND=agg

# The environments are a layer of their own: a change of the code does not install them anew.
ARG USE_CASES="downscaling/corrdiff precip_postproc/resunet_qpf weather_forecast/gwd weather_forecast/lam"
ARG PIP_EXTRA_INDEX_URL
COPY --chown=10001:10001 pyproject.toml constraints.txt README.rst LICENSE noxfile.py ./
COPY --chown=10001:10001 tools tools
COPY --chown=10001:10001 ai4sim/__init__.py ai4sim/__init__.py
COPY --chown=10001:10001 downscaling/corrdiff/noxfile.py downscaling/corrdiff/noxfile.py
COPY --chown=10001:10001 precip_postproc/resunet_qpf/noxfile.py precip_postproc/resunet_qpf/noxfile.py
COPY --chown=10001:10001 weather_forecast/gwd/noxfile.py weather_forecast/gwd/noxfile.py
COPY --chown=10001:10001 weather_forecast/lam/noxfile.py weather_forecast/lam/noxfile.py
RUN for use_case in ${USE_CASES}; do nox -f "${use_case}/noxfile.py" -s env || exit 1; done

COPY --chown=10001:10001 . .
COPY --chown=10001:10001 docker/script.sh script.sh

# Mount a volume here to keep what a container makes.
ENV AI4SIM_DATA=/home/ai4sim/work/data \
    AI4SIM_EXPERIMENTS=/home/ai4sim/work/experiments
RUN mkdir -p /home/ai4sim/work
VOLUME /home/ai4sim/work

CMD ["bash"]
