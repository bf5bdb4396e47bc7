# docker build -t vlmreason . && docker run -v "$PWD/outputs:/vlmreason/outputs" vlmreason
# Installs as `make run` does, with PyTorch for the CPU, then trains and evaluates the nano model. Tests read it, and none builds it.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /vlmreason
COPY . .
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN make .venv/.installed
CMD ["make", "run"]
