# syntax=docker/dockerfile:1
# CPU:  docker build -t faultline .
# CUDA: docker build -t faultline:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .

FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.txt .
# torch first, from its own index, so that the pin below is already met and no other build is pulled.
RUN pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.txt)" \
 && pip install -r requirements.txt

FROM python:3.11-slim-bookworm
# libgomp: OpenMP runtime of scikit-learn and torch.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --home-dir /var/lib/faultline faultline
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv/faultline
COPY . .
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/srv/faultline \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/faultline \
    FAULTLINE_HOME=/var/lib/faultline/data
USER faultline
VOLUME /var/lib/faultline
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["python", "-m", "streamlit", "run", "app/server.py", "--server.address=0.0.0.0", "--server.port=8501"]
