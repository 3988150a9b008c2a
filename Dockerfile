# One image for web, engine and worker; the command decides which. Two targets:
#   cpu    docker build --target cpu .
#   cuda   docker build --target cuda .     for a host with NVIDIA's container toolkit
# The registry's torch carries CUDA and runs without it too, so both are of one build (6 GB). An index that has smaller
# wheels for CPUs alone, of torch and torchvision both, can be named: --build-arg TORCH_INDEX=https://…
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
RUN python -m venv /opt/tator
ENV PATH=/opt/tator/bin:$PATH
WORKDIR /source
COPY constraints.txt ./
RUN pip install -c constraints.txt setuptools wheel
ARG TORCH_INDEX=
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url=${TORCH_INDEX}} torch torchvision
# what Tator stands on, without Tator: a change of its code makes none of this anew
COPY pyproject.toml README.md LICENSE ./
RUN pip install -c constraints.txt '.[server,models]' \
    && SAM2_BUILD_CUDA=0 pip install -c constraints.txt --no-build-isolation sam2
COPY label_config label_config
COPY tator_sdk tator_sdk
COPY tator_ml tator_ml
COPY training training
RUN pip install --no-deps --no-build-isolation --force-reinstall .

FROM python:${PYTHON}-slim-bookworm AS cpu
ENV PATH=/opt/tator/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TATOR_HOME=/data HF_HOME=/data/hub MPLCONFIGDIR=/tmp
# the same number in every image, so that volumes stay readable from one version to the next
RUN useradd --uid 10001 --create-home tator && install --directory --owner=tator --mode=700 /data
COPY --from=build /opt/tator /opt/tator
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 9090
CMD ["tator", "serve"]

FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
