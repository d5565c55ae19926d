"use strict";

// Swagger UI knows its dark colours but not when to use them.
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const followSystem = () => document.documentElement.classList.toggle("dark-mode", prefersDark.matches);
prefersDark.addEventListener("change", followSystem);
followSystem();

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#contract",
  deepLinking: true, // an operation has an address that can be sent to a colleague
  filter: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0, // the operations are what people come for
  defaultModelExpandDepth: 3,
  persistAuthorization: true,
  syntaxHighlight: { theme: prefersDark.matches ? "agate" : "idea" },
  validatorUrl: null, // the default sends the document to a foreign site
});
