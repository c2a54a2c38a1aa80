"""Pages in Airflow's UI. See docs/decisions/0003-pages-in-airflow.md."""
