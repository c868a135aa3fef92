# The HTTP API with the embedded model on the CPU.
#   docker build -t consistentid .
#   docker run -p 8000:8000 -e CONSISTENTID_SERVE_API_KEYS=SECRET -v consistentid:/data consistentid
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/consistentid
ENV PATH=/opt/consistentid/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
# Without CUDA libraries, and in a layer of its own: it changes least.
RUN pip install -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install -c constraints.txt '.[web]'

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 consistentid && install -d -m 700 -o consistentid /data
COPY --from=build /opt/consistentid /opt/consistentid
ENV PATH=/opt/consistentid/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/consistentid
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v1/health', timeout=4)"]
ENTRYPOINT ["consistentid"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--store", "/data"]
