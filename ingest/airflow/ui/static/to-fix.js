// The button "N lines to fix" on Airflow's page of a DAG, from 3.4 on. Airflow lends React and its own components.
const { createElement, useEffect, useState } = globalThis.React;

globalThis.landfall_to_fix = function ToFix({ dagId }) {
  const [open, setOpen] = useState(0);
  useEffect(() => {
    const left = new AbortController();
    fetch(new URL(`landfall/to-fix?dag_id=${encodeURIComponent(dagId)}`, document.baseURI), { signal: left.signal })
      .then((answer) => (answer.ok ? answer.json() : { open: 0 }))
      .then((told) => setOpen(told.open), () => {}); // without an answer there is no button
    return () => left.abort();
  }, [dagId]);
  if (!open) return null;
  const link = { to: `/dags/${encodeURIComponent(dagId)}/plugin/landfall-dag` };
  const words = `${open.toLocaleString("en")} line${open === 1 ? "" : "s"} to fix`;
  return createElement(
    globalThis.ChakraUI.Button,
    { asChild: true, alignSelf: "start", colorPalette: "red", order: 1, size: "sm", variant: "outline" },
    createElement(globalThis.ReactRouterDOM.Link, link, words),
  );
};
