# Airflow with Landfall in it: a slim Python and one environment, /opt/landfall, from the committed hashes. It is the one that the tests
# saw. The official image of Airflow would bring a second one, with hundreds of megabytes that nothing uses, and other versions.
# No engine runs where this is written: tests/test_compose.py checks what it says, and nobody has built it yet.
# The digest says which image; the name before it is for people: see CONTRIBUTING.md, "Images".
FROM python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254 AS build
WORKDIR /src
COPY requirements-setup.txt ./
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-setup.txt
COPY requirements-airflow.txt ./
RUN python -m venv --without-pip /opt/landfall \
    && /opt/build/bin/uv pip install --no-cache --compile-bytecode --python /opt/landfall/bin/python --require-hashes -r requirements-airflow.txt
COPY pyproject.toml LICENSE README.md ./
COPY ingest ingest
COPY schemas schemas
RUN PATH=/opt/build/bin:$PATH /opt/build/bin/uv build --wheel --no-build-isolation --python /opt/build/bin/python --out-dir /tmp/dist . \
    && /opt/build/bin/uv pip install --no-cache --compile-bytecode --python /opt/landfall/bin/python --no-deps /tmp/dist/*.whl

FROM python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254
# The user and the folders are those of the official image.
RUN useradd --uid 50000 --gid 0 --home-dir /opt/airflow --no-create-home airflow \
    && install --directory --owner 50000 --group 0 --mode 775 /opt/airflow /opt/airflow/config /opt/airflow/logs /opt/airflow/state
COPY --from=build /opt/landfall /opt/landfall
COPY dags /opt/airflow/dags
ENV PATH=/opt/landfall/bin:$PATH \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PYTHONUNBUFFERED=1
USER 50000
WORKDIR /opt/airflow
ENTRYPOINT ["airflow"]
CMD ["version"]
