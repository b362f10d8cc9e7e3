# hashret serve on a CPU; docs/container.md says how to build and run it.
FROM python:3.11-slim
# Where pip finds torch without CUDA. Empty: pip's own, with CUDA.
ARG TORCH_INDEX="https://download.pytorch.org/whl/cpu"
WORKDIR /app
COPY pyproject.toml setup.cfg setup.py README.md LICENSE ./
COPY tools/constraints.txt tools/
COPY hashret hashret
RUN HASHRET_CPU=1 pip install --no-cache-dir --constraint tools/constraints.txt \
      ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[fast,serve,openvino]' \
 && useradd --create-home hashret
USER hashret
EXPOSE 8000
# The container's own loopback cannot be reached from outside it; --publish says who reaches the port.
CMD ["hashret", "serve", "/photographs", "--host", "0.0.0.0"]
