# docker build -t mser .
# docker run --gpus all -v /data:/data -v /cache:/cache mser extract --dataset meld --root /data/MELD.Raw
# Without CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
FROM python:3.12-slim
ARG TORCH_INDEX=https://pypi.org/simple
COPY pyproject.toml LICENSE __init__.py __main__.py cli.py py.typed /opt/mser/
COPY docs/package.md /opt/mser/docs/
COPY cache /opt/mser/cache
COPY heads /opt/mser/heads
COPY pipeline /opt/mser/pipeline
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchaudio && pip install --no-cache-dir /opt/mser
ENV MSER_CACHE=/cache HF_HOME=/cache/huggingface
ENTRYPOINT ["mser"]
CMD ["--help"]
