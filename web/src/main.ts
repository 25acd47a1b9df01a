import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";
import { session } from "./lib/session.svelte";
import { showTheme } from "./lib/settings.svelte";

showTheme();
void session.begin();
mount(App, { target: document.body });
