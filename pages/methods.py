"""Methods: how is each number made?"""

import streamlit as st

from app import documents

text = documents.document("methods.md")
if text is None:
    st.info("The definitions are kept in `docs/methods.md`, which is missing from this copy.")
else:
    st.markdown(text.partition("\n")[2] if text.startswith("# ") else text)

st.markdown("##### Versions")
st.dataframe(
    {
        "Package": list(documents.package_versions()),
        "Version": list(documents.package_versions().values()),
    },
    hide_index=True,
    width="content",
    alt="Versions of the packages this dashboard computes and draws with",
)
