# One image for web, engine and worker; the command decides.
FROM python:3.11-slim
WORKDIR /app
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 TATOR_HOME=/data
COPY constraints.txt ./
RUN pip install setuptools wheel && pip install -c constraints.txt torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY label_config label_config
COPY tator_sdk tator_sdk
COPY tator_ml tator_ml
COPY training training
RUN pip install -c constraints.txt '.[server,models]' \
    && SAM2_BUILD_CUDA=0 pip install -c constraints.txt --no-build-isolation sam2
RUN useradd --create-home tator && mkdir /data && chown tator /data
USER tator
VOLUME /data
EXPOSE 9090
CMD ["tator", "serve"]
