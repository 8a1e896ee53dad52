# JupyterLab with everything that requirements.lock pins:
#   docker build -t altlib . && docker run -p 8888:8888 altlib
# An index may hand out torch's CUDA build, which is large; README says what to do where there is no GPU.
FROM python:3.11-slim-bookworm
WORKDIR /altlib
COPY . .
RUN ./run_all.sh quick --show >/dev/null
EXPOSE 8888
CMD [".venv/bin/jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--allow-root", "notebooks"]
