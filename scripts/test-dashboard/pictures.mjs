// Takes pictures of all views, at three widths, in light and dark: `test-dashboard.sh --screenshots DIR`. A person looks at them.

import fs from "node:fs";
import path from "node:path";

import { Browser, Daemon } from "./support.mjs";

const [directory] = process.argv.slice(2);
const WIDTHS = [360, 768, 1280];
const LONG = "a name that somebody thought had to say what it does, on which board, in which rack, and since when, which is too much";

/** A few of each kind, with something in their logs and plots. */
const FEW = [
    { name: "clock", command: "sh", args: "-c 'while date +%T; do sleep 1; done'", auto_restart: true, enabled: true, description: "Says what time it is" },
    { name: "speaker", command: "sh", args: "-c 'while :; do echo \"level=debug poll\"; echo \"[INFO] 12 messages sent\"; echo \"[WARN] queue is 80 % full\"; echo \"connection refused: retrying\" >&2; sleep 2; done'" },
    { name: "broken", command: "sh", args: "-c 'echo \"cannot open /etc/broken.conf\" >&2; exit 2'", environment: { LANG: "C.UTF-8", BROKEN_CONFIG: "/etc/broken.conf" } },
];

/** Programs that sleep, two of them with names that are hard to place. */
async function createMany(daemon) {
    for (let at = 0; at < 36; at += 1) {
        const name = { 1: LONG, 3: "x".repeat(128) }[at] ?? `worker ${at}`;
        await daemon.create({ name, command: "sleep", args: "1000", auto_restart: at % 3 === 0 }, at % 4 !== 0);
    }
}

async function take(daemon, name, hash, { prepare, schemes = ["light", "dark"], widths = WIDTHS, settle = 500 } = {}) {
    for (const width of widths) {
        for (const scheme of schemes) {
            const browser = await Browser.open(`${daemon.url}${hash}`, { width, height: width < 600 ? 740 : 800, scheme });
            const { page } = browser;
            if (prepare !== null) {
                await browser.logIn();
                await page.waitForFunction(() => document.getElementById("link-word").textContent === "Live");
            }
            await prepare?.(page);
            // For what is still to be drawn: nobody judges these by script.
            await page.waitForTimeout(settle);
            const file = path.join(directory, `${name}-${width}-${scheme}.png`);
            await page.screenshot({ path: file });
            console.log(file);
            await browser.close();
        }
    }
}

const daemon = await Daemon.start("rate_limit = 0");
try {
    await take(daemon, "login", "", { prepare: null });
    await take(daemon, "empty", "");
    const file = path.join(daemon.dir, "programs.d", "fixed.toml");
    fs.writeFileSync(file, '[program]\nname = "fixed"\ncommand = "sleep"\nargs = "1000"\nenabled = true\n', { mode: 0o644 });
    await daemon.call("POST", "/reload");
    for (const definition of FEW) {
        await daemon.create(definition);
    }
    await take(daemon, "few", "");
    await take(daemon, "program", "#/program/speaker");
    await take(daemon, "exits", "#/program/broken/exits", { prepare: (page) => page.getByText("Its last output").first().click() });
    await take(daemon, "definition", "#/program/broken/definition");
    await take(daemon, "declared", "#/program/fixed");
    await take(daemon, "system", "#/system");
    await take(daemon, "form", "#/new", {
        prepare: async (page) => {
            await page.getByLabel("Name (needed)").fill("clock");
            await page.getByRole("button", { name: "Create" }).click();
            await page.locator("[aria-invalid]").waitFor();
        },
    });
    await take(daemon, "dialog", "#/program/clock", { prepare: (page) => page.getByRole("button", { name: "Delete" }).click() });
    await createMany(daemon);
    await take(daemon, "many", "");
    for (const [name, hash] of [["lost-list", ""], ["lost-program", "#/program/clock"]]) {
        const lose = async (page) => {
            await daemon.end();
            await page.getByText("Not connected to hxe").waitFor();
        };
        for (const width of WIDTHS) {
            for (const scheme of ["light", "dark"]) {
                await take(daemon, name, hash, { prepare: lose, widths: [width], schemes: [scheme] });
                await daemon.begin();
            }
        }
    }
} finally {
    await daemon.remove();
}
