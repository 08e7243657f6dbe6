// What a person does with the dashboard, and what they must see. Each test has a daemon and a browser of its own.
//
// Usage: test.mjs [PART OF A NAME], with HXE and MODULES as test-dashboard.sh sets them

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

import { Browser, Daemon, PATIENCE, until } from "./support.mjs";

const PHONE = 360;
const DESK = 1280;

/** A file that a program writes to its log, line by line. */
function source(daemon) {
    const file = path.join(daemon.dir, "source");
    fs.writeFileSync(file, "");
    fs.chmodSync(file, 0o644);
    return { args: `-n +1 -f ${file}`, write: (line) => fs.appendFileSync(file, `${line}\n`) };
}

/** The state that a program's page or its row in the list shows. */
const state = (page, word) => page.locator(".badge").filter({ hasText: new RegExp(`^${word}$`) });

/** Waits for "Live", "Connecting" or "Not connected". */
const connection = (page, word) => page.waitForFunction((word) => document.getElementById("link-word").textContent === word, word, { timeout: PATIENCE });

const fact = (page, name) => page.locator(".facts > div").filter({ has: page.getByText(name, { exact: true }) }).locator("dd");

/** From the login to the deletion, with two losses of the daemon on the way. */
async function walk(width, scheme) {
    const daemon = await Daemon.start();
    const browser = await Browser.open(daemon.url, { width, scheme });
    const { page } = browser;
    try {
        await page.getByRole("heading", { name: "Log in" }).waitFor();
        await browser.check("login");
        await browser.logIn("wrong");
        await page.getByText("Invalid credentials").waitFor();
        await browser.check("login refused");
        await browser.logIn();
        await page.getByText("There are no programs yet.").waitFor();
        await connection(page, "Live");
        assert.equal(await page.title(), "Programs · 127.0.0.1");
        await browser.check("empty list");

        // Created, with the daemon's own words where something is wrong.
        await page.getByRole("link", { name: "New program" }).click();
        await page.getByRole("button", { name: "Create" }).click();
        await page.getByText("Name is required").waitFor();
        assert.equal(await page.getByLabel("Name (needed)").getAttribute("aria-invalid"), "true");
        await page.waitForFunction(() => document.activeElement.getAttribute("aria-invalid") === "true");
        await browser.check("form with a mistake");
        const log = source(daemon);
        await page.getByLabel("Name (needed)").fill("watched & <b>kept</b>");
        await page.getByLabel("Command (needed)").fill("tail");
        await page.getByLabel("Arguments").fill(log.args);
        await page.getByLabel("Restart it when it ends by itself").check();
        await page.getByLabel("Umask").fill("9");
        await page.getByRole("button", { name: "Add a variable" }).click();
        await page.getByLabel("Variable", { exact: true }).fill("GREETING");
        await page.getByLabel("Value", { exact: true }).fill("hello there");
        await page.getByRole("button", { name: "Create" }).click();
        await page.getByText("Must be an octal number").waitFor();
        assert.equal(await page.getByLabel("Umask").getAttribute("aria-invalid"), "true");
        await page.getByLabel("Umask").fill("027");
        await page.getByRole("button", { name: "Create" }).click();

        // Started, and its log comes by itself.
        await page.getByRole("heading", { name: "watched & <b>kept</b>" }).waitFor();
        await state(page, "running").waitFor();
        const lines = page.getByRole("log");
        await lines.getByText("Program started successfully").waitFor();
        log.write("first <img src=x onerror=alert(1)> light");
        await lines.getByText("first <img src=x onerror=alert(1)> light").waitFor();
        assert.equal(await page.locator("img").count(), 0);
        log.write("[ERROR] it burns");
        await lines.locator("[data-level=error]").getByText("it burns").waitFor();
        await browser.check("program");
        await page.getByLabel("error").uncheck();
        await lines.getByText("it burns").waitFor({ state: "detached" });
        await page.getByLabel("error").check();
        await page.getByLabel("Search the log").fill("BURNS");
        await lines.locator("mark").getByText("burns").waitFor();
        assert.equal(await lines.locator(".line").count(), 1);
        await page.getByLabel("Search the log").fill("");
        await page.getByRole("button", { name: "Pause" }).click();
        log.write("while nobody looked");
        await page.getByText("1 new line").waitFor();
        assert.equal(await lines.getByText("while nobody looked").count(), 0);
        await page.getByRole("button", { name: "Go on" }).click();
        await lines.getByText("while nobody looked").waitFor();
        const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
        const downloaded = fs.readFileSync(await download.path(), "utf8");
        assert.match(downloaded, /^\S+Z info first <img src=x onerror=alert\(1\)> light$/m);

        // Killed, and it comes back.
        const pid = await fact(page, "Pid").textContent();
        process.kill(Number(pid), "SIGKILL");
        await page.waitForFunction((pid) => {
            const [first] = document.querySelectorAll(".facts dd");
            return /^\d+$/.test(first.textContent) && first.textContent !== pid;
        }, pid);
        await state(page, "running").waitFor();
        await until("a restart is counted", async () => (await fact(page, "Restarts").textContent()) === "1");
        await page.getByRole("link", { name: "Exits" }).click();
        await page.getByText("signal KILL").first().waitFor();
        await page.getByText("Its last output").first().click();
        await page.locator(".exits pre").getByText("while nobody looked").waitFor();
        await browser.check("exits");
        await page.getByRole("link", { name: "Definition" }).click();
        await page.getByText("GREETING=hello there").waitFor();
        await browser.check("definition");
        await page.goBack();
        await page.locator(".exits").waitFor();

        // Changed.
        await page.getByRole("link", { name: "Edit" }).click();
        await page.getByLabel("Description").fill("under test");
        await until("the form is filled in", async () => (await page.getByLabel("Umask").inputValue()) === "027");
        await page.getByLabel("Description").fill("under test");
        await page.getByLabel("Time to stop").fill("soon");
        await page.getByRole("button", { name: "Save" }).click();
        await until("the mistake is at its field", async () => (await page.getByLabel("Time to stop").getAttribute("aria-invalid")) === "true");
        await browser.check("edit");
        await page.getByLabel("Time to stop").fill("20s");
        await page.getByRole("button", { name: "Save" }).click();
        await page.locator("dl.definition").getByText("under test").waitFor();
        await page.getByRole("button", { name: "Enable" }).click();
        await page.getByRole("button", { name: "Disable" }).waitFor();
        await page.getByRole("link", { name: "Log", exact: true }).click();
        // Its second run has read all of them again.
        const first = lines.getByText("first <img");
        await until("its log is there", async () => (await first.count()) === 2);

        // The daemon dies and is back; nothing was missed meanwhile.
        await page.evaluate(() => {
            window.words = [];
            const word = document.getElementById("link-word");
            new MutationObserver(() => window.words.push(word.textContent)).observe(word, { childList: true, characterData: true, subtree: true });
        });
        await daemon.killServer();
        log.write("while the daemon was dead");
        await page.waitForFunction(() => window.words.length > 1 && window.words.at(-1) === "Live");
        await lines.getByText("while the daemon was dead").waitFor();
        assert.equal(await first.count(), 2);

        // It is stopped with all programs, which is said, and started again.
        await daemon.end();
        await connection(page, "Not connected");
        await page.getByText("Not connected to hxe: what is shown is from").waitFor();
        await browser.check("lost");
        await page.goto(`${daemon.url}#/`);
        await page.locator("table").waitFor();
        assert.ok(await page.locator("body.stale").count());
        await browser.check("lost, list");
        await daemon.begin();
        await connection(page, "Live");
        await page.getByText("Connected again.").waitFor();
        await state(page, "running").waitFor();
        await browser.check("list");

        // Stopped and started in the list, by whoever.
        await page.getByRole("button", { name: "Stop watched" }).click();
        await state(page, "stopped").waitFor();
        const [{ id }] = await daemon.call("GET", "/program");
        await daemon.call("POST", `/program/${id}/start`);
        await state(page, "running").waitFor();
        await page.getByRole("link", { name: "watched" }).click();
        await page.getByRole("button", { name: "Stop" }).click();
        await state(page, "stopped").waitFor();

        // Deleted, if it is meant.
        await page.getByRole("button", { name: "Delete" }).click();
        await page.getByRole("dialog").waitFor();
        await browser.check("dialog");
        await page.keyboard.press("Escape");
        await page.getByRole("dialog").waitFor({ state: "detached" });
        assert.equal(await page.evaluate(() => document.activeElement.textContent), "Delete");
        await page.getByRole("button", { name: "Delete" }).click();
        await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
        await page.getByText("There are no programs yet.").waitFor();
        assert.deepEqual(await daemon.call("GET", "/program"), []);

        await page.getByRole("link", { name: "System" }).first().click();
        await page.getByText("Serves since").waitFor();
        await browser.check("system");
        await page.getByRole("button", { name: "Log out" }).click();
        await page.getByRole("heading", { name: "Log in" }).waitFor();
        assert.equal(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }])), "[{},{}]");
        assert.equal(browser.refusals, 0, "the rate limit was met");
        browser.blameless("walk");
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** However much a program writes, the page holds a part of it only, and goes on. */
async function flood() {
    const daemon = await Daemon.start();
    const id = await daemon.create({ name: "flood", command: "sh", args: "-c 'seq -f \"line %.0f of many\" 60000; exec sleep 1000'" }, false);
    const browser = await Browser.open(`${daemon.url}#/program/flood`, { width: DESK });
    const { page } = browser;
    try {
        await browser.logIn();
        await page.getByText("Nothing has been logged yet.").waitFor();
        await connection(page, "Live");
        await daemon.call("POST", `/program/${id}/start`);
        const lines = page.getByRole("log");
        await lines.getByText("line 60000 of many").waitFor();
        assert.ok((await lines.locator(".line").count()) <= 800);
        const isLast = () => page.evaluate(() => document.querySelector(".lines").lastElementChild.textContent.includes("line 60000 of many"));
        assert.ok(await isLast());
        // Up to the first line that is kept, and down again.
        await lines.focus();
        await page.keyboard.press("Home");
        await page.getByRole("button", { name: "Go on" }).waitFor();
        assert.ok((await lines.locator(".line").count()) <= 800);
        assert.ok(!(await isLast()));
        const last = () => page.evaluate(() => Number(/line (\d+) of/.exec(document.querySelector(".lines").lastElementChild.textContent)[1]));
        const before = await last();
        await page.evaluate(() => document.querySelector(".lines").scrollTo(0, 1e9));
        await until("scrolling shows more", async () => (await last()) > before);
        await page.keyboard.press("End");
        await page.getByRole("button", { name: "Pause" }).waitFor();
        await until("the end is shown", isLast);
        await page.getByLabel("Search the log").fill("line 59999 ");
        await until("one line fits", async () => (await lines.locator(".line").count()) === 1);
        // Of a log that was there before, the last lines are read, and all others on request.
        await page.reload();
        await lines.getByText("line 60000 of many").waitFor();
        await lines.focus();
        await page.keyboard.press("Home");
        const top = () => page.evaluate(() => Number(/line (\d+) of/.exec(document.querySelector(".lines").firstElementChild.textContent)[1]));
        await until("the first that was read is shown", async () => (await top()) === 59_001);
        await page.getByRole("button", { name: "Read earlier lines" }).click();
        await until("more lines are there", async () => (await top()) < 59_001);
        await lines.focus();
        await page.keyboard.press("Home");
        await until("the first is shown", async () => (await top()) === 50_001);
        browser.blameless("flood");
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** Each line is there once, whatever happens to the daemon meanwhile. */
async function deaths() {
    const daemon = await Daemon.start();
    await daemon.create({ name: "counter", command: "sh", args: "-c 'n=0; while :; do n=$((n + 1)); echo \"count $n\"; sleep 0.1; done'" });
    const browser = await Browser.open(`${daemon.url}#/program/counter`, { width: DESK });
    const { page } = browser;
    const counts = async () => (await page.locator(".line .text").allTextContents()).filter((text) => text.startsWith("count ")).map((text) => Number(text.slice(6)));
    const more = async () => {
        const before = (await counts()).at(-1) ?? 0;
        await until("lines come", async () => (await counts()).at(-1) > before + 5);
    };
    try {
        await browser.logIn();
        await connection(page, "Live");
        await more();
        const kill = () => daemon.killServer();
        const upgrade = () => daemon.child.kill("SIGUSR2");
        for (const disturb of [kill, kill, upgrade]) {
            const { server_pid: before } = await daemon.call("GET", "/daemon");
            await disturb();
            await until("another process serves", async () => (await daemon.call("GET", "/daemon").catch(() => null))?.server_pid !== before);
            await connection(page, "Live");
            await more();
        }
        // Who reads the first lines keeps them in sight while it dies once more.
        await page.getByRole("log").press("Home");
        const top = () => page.evaluate(() => document.querySelector(".lines").scrollTop);
        const { server_pid: before } = await daemon.call("GET", "/daemon");
        await daemon.killServer();
        await until("another process serves", async () => (await daemon.call("GET", "/daemon").catch(() => null))?.server_pid !== before);
        await connection(page, "Live");
        await page.getByText(/^\d+ new lines$/).waitFor();
        assert.equal(await top(), 0);
        await page.getByRole("button", { name: "Go on" }).click();
        await more();
        const seen = await counts();
        const expected = Array.from(seen, (_, index) => seen[0] + index);
        assert.deepEqual(seen, expected);
        browser.blameless("deaths");
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** What files declare can be seen, started and stopped, but not changed; the reason stands there. */
async function declared() {
    const daemon = await Daemon.start();
    const file = path.join(daemon.dir, "programs.d", "fixed.toml");
    fs.writeFileSync(file, '[program]\nname = "fixed"\ncommand = "sleep"\nargs = "1000"\n', { mode: 0o644 });
    await daemon.call("POST", "/reload");
    const browser = await Browser.open(`${daemon.url}#/program/fixed`, { width: PHONE, scheme: "dark" });
    const { page } = browser;
    try {
        await browser.logIn();
        await page.getByText(`Declared in ${file}: change it there, and reload.`).waitFor();
        for (const name of ["Enable", "Delete"]) {
            assert.ok(await page.getByRole("button", { name }).isDisabled(), name);
        }
        assert.equal(await page.getByRole("link", { name: "Edit" }).getAttribute("href"), null);
        await browser.check("declared");
        await page.getByRole("button", { name: "Start" }).click();
        await state(page, "running").waitFor();
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** A token that is no longer good leads to the login, and from there to where one was; so does a link. */
async function session() {
    const daemon = await Daemon.start('token_lifetime = "1h"');
    await daemon.create({ name: "linked", command: "sleep", args: "1000" });
    const browser = await Browser.open(`${daemon.url}#/program/linked/definition`, { width: DESK });
    const { page } = browser;
    try {
        await browser.logIn();
        await page.locator("dl.definition").getByText("sleep").waitFor();
        assert.equal(await page.title(), "linked · 127.0.0.1");
        await page.reload();
        await page.locator("dl.definition").getByText("sleep").waitFor();
        await page.getByRole("link", { name: "Edit" }).click();
        await until("the form is filled in", async () => (await page.getByLabel("Arguments").inputValue()) === "1000");
        await page.getByLabel("Arguments").fill("2000");
        const { token } = await page.evaluate(() => JSON.parse(sessionStorage.getItem("hxe-session")));
        const ended = await fetch(`${daemon.url}api/auth/logout`, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
        assert.equal(ended.status, 200);
        await page.getByRole("heading", { name: "Log in" }).waitFor();
        assert.equal(await page.title(), "Log in · 127.0.0.1");
        await browser.logIn();
        await page.getByRole("heading", { name: "Edit linked" }).waitFor();
        assert.equal(await page.title(), "Edit linked · 127.0.0.1");
        await page.getByRole("button", { name: "Save" }).click();
        await page.locator("dl.definition").getByText("2000").waitFor();
        // A token in the last quarter of its life is replaced.
        const old = await page.evaluate(() => {
            const session = JSON.parse(sessionStorage.getItem("hxe-session"));
            sessionStorage.setItem("hxe-session", JSON.stringify({ ...session, since: session.since - 0.8 * session.lifetime }));
            return session.token;
        });
        await page.reload();
        await until("there is another token", async () => (await page.evaluate(() => JSON.parse(sessionStorage.getItem("hxe-session")).token)) !== old);
        await connection(page, "Live");
        // What is not there, is said.
        await page.goto(`${daemon.url}#/program/nothing`);
        await page.getByRole("heading", { name: "No such program" }).waitFor();
        await page.goBack();
        await page.locator("dl.definition").waitFor();
        // The keyboard finds its way past the head.
        await page.goto(`${daemon.url}#/`);
        await page.reload();
        await page.getByRole("link", { name: "linked" }).waitFor();
        await page.keyboard.press("Tab");
        assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
        await page.keyboard.press("Enter");
        assert.equal(await page.evaluate(() => document.activeElement.id), "view");
        browser.blameless("session");
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** A program's log is wanted while the connection is still made: its lines come none the less. */
async function slowWires() {
    const daemon = await Daemon.start();
    const log = source(daemon);
    await daemon.create({ name: "far", command: "tail", args: log.args });
    const browser = await Browser.open("about:blank", { width: PHONE });
    const { page } = browser;
    try {
        // The answer to the first auth is there after a second, that to the subscription after two.
        await page.routeWebSocket(/\/api\/ws$/, (socket) => {
            const server = socket.connectToServer();
            server.onMessage((message) => setTimeout(() => socket.send(message), 1000));
        });
        await page.route(/\/api\/program\?/, (route) => setTimeout(() => route.continue(), 1500));
        await page.goto(`${daemon.url}#/program/far`);
        await browser.logIn();
        await connection(page, "Live");
        await page.getByRole("log").getByText("Program started successfully").waitFor();
        log.write("from afar");
        await page.getByRole("log").getByText("from afar").waitFor();
        browser.blameless("slow wires");
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** Where no WebSocket can be had, that is said, and requests tell the same a little later. */
async function noSocket() {
    const daemon = await Daemon.start();
    const log = source(daemon);
    const id = await daemon.create({ name: "plain", command: "tail", args: log.args });
    const browser = await Browser.open("about:blank", { width: PHONE, scheme: "dark" });
    const { page } = browser;
    try {
        await page.routeWebSocket(/\/api\/ws$/, (socket) => socket.close());
        await page.goto(`${daemon.url}#/program/plain`);
        await browser.logIn();
        await page.getByText("No live connection").waitFor();
        assert.equal(await page.locator("body.stale").count(), 0);
        log.write("none the less");
        await page.getByRole("log").getByText("none the less").waitFor();
        await browser.check("no socket");
        await daemon.call("POST", `/program/${id}/stop`);
        await state(page, "stopped").waitFor();
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** Where requests are few, what is asked for is done a little later, and nobody is bothered. */
async function fewRequests() {
    const daemon = await Daemon.start('rate_limit = 4\nrate_limit_window = "2s"');
    await daemon.create({ name: "slow", command: "sleep", args: "1000" });
    const browser = await Browser.open(daemon.url, { width: PHONE });
    const { page } = browser;
    try {
        await browser.logIn();
        await page.getByRole("link", { name: "slow" }).click();
        await state(page, "running").waitFor();
        for (const [button, then] of [["Stop", "stopped"], ["Start", "running"], ["Restart", "running"], ["Stop", "stopped"]]) {
            await page.getByRole("button", { name: button, exact: false }).first().click();
            await state(page, then).waitFor();
        }
        await page.getByRole("log").getByText("Program stopped successfully").first().waitFor();
        assert.equal(await page.locator("#notices .alert").count(), 0);
        browser.blameless("few requests");
    } catch (error) {
        await report(error, browser, daemon);
    } finally {
        await browser.close();
        await daemon.remove();
    }
}

/** Shows what could be seen when it failed. */
async function report(error, browser, daemon) {
    const picture = path.join(process.env.MODULES, "failure.png");
    await browser.page.screenshot({ path: picture, timeout: 10_000 }).catch(() => {});
    console.error(`${browser.page.url()}, ${await browser.page.title().catch(() => "")}: see ${picture}`);
    console.error(await browser.page.locator("body").innerText({ timeout: 10_000 }).catch(() => ""));
    console.error(browser.mistakes.join("\n"));
    console.error(daemon.output());
    throw error;
}

const tests = {
    "a walk on a phone, in light": () => walk(PHONE, "light"),
    "a walk at a desk, in dark": () => walk(DESK, "dark"),
    "a flood of lines": flood,
    "deaths of the daemon": deaths,
    "a program declared in a file": declared,
    "a session that ends": session,
    "slow wires": slowWires,
    "no WebSocket": noSocket,
    "few requests allowed": fewRequests,
};
const [wanted = ""] = process.argv.slice(2);
for (const [name, test] of Object.entries(tests).filter(([name]) => name.includes(wanted))) {
    const begin = Date.now();
    await test();
    console.log(`${name}: ok (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
}
