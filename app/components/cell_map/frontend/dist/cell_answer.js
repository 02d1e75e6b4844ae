/* Faultline, cell map. Licences of the packages inside: LICENSES.txt beside this file. */
function i({data:t,parentElement:n}){let e=n.querySelector("p");e||(e=document.createElement("p"),e.setAttribute("role","status"),e.dir="auto",n.append(e)),e.textContent=t?.text??"",t?.map&&window.dispatchEvent(new CustomEvent("faultline:cell",{detail:t}))}export{i as default};
