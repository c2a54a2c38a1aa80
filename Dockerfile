# Airflow with Landfall in it. The official image gives the interpreter, the user and the entry point; what runs is an
# environment of its own from the committed hashes, so that it is the one that the tests saw. The digest says which image;
# the name before it is for people: see CONTRIBUTING.md, "Images".
FROM apache/airflow:3.3.2-python3.12@sha256:9df9c8be4096b9cc626bd7cb1f2b8c712eef66c59c615f8c7e6200871ca10bd1 AS build
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

FROM apache/airflow:3.3.2-python3.12@sha256:9df9c8be4096b9cc626bd7cb1f2b8c712eef66c59c615f8c7e6200871ca10bd1
COPY --from=build /opt/landfall /opt/landfall
COPY dags /opt/airflow/dags
ENV PATH=/opt/landfall/bin:$PATH \
    PYTHONPATH= \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
