# Airflow with Landfall in it. The official image gives the interpreter, the user and the entry point; what runs is an
# environment of its own from the committed hashes, so that it is the one that the tests saw.
FROM apache/airflow:3.3.2-python3.12 AS build
USER root
WORKDIR /src
COPY requirements-setup.txt ./
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-setup.txt
COPY requirements-airflow.txt ./
RUN python -m venv /opt/landfall \
    && /opt/build/bin/uv pip install --no-cache --compile-bytecode --python /opt/landfall/bin/python --require-hashes -r requirements-airflow.txt
COPY pyproject.toml LICENSE README.md ./
COPY ingest ingest
COPY schemas schemas
RUN PATH=/opt/build/bin:$PATH /opt/build/bin/uv build --wheel --no-build-isolation --python /opt/build/bin/python --out-dir /tmp/dist . \
    && /opt/build/bin/uv pip install --no-cache --compile-bytecode --python /opt/landfall/bin/python --no-deps /tmp/dist/*.whl

FROM apache/airflow:3.3.2-python3.12
COPY --from=build /opt/landfall /opt/landfall
COPY dags /opt/airflow/dags
ENV PATH=/opt/landfall/bin:$PATH \
    PYTHONPATH= \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
