// A daemon of our own, and a browser that looks at it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const require = createRequire(`${process.env.MODULES}/`);
const { chromium } = require("playwright-core");
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const PASSWORD = "for this run only";
/** For whatever is waited for, in milliseconds: machines may be busy. */
export const PATIENCE = 60_000;

/** Gives the first result of `look` that is true. */
export async function until(what, look) {
    const end = Date.now() + PATIENCE;
    for (;;) {
        const found = await look();
        if (found) {
            return found;
        }
        assert.ok(Date.now() < end, `in vain: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

function freePort() {
    return new Promise((resolve) => {
        const server = net.createServer().listen(0, "127.0.0.1", () => {
            const { port } = server.address();
            server.close(() => resolve(port));
        });
    });
}

/** Daemons that run: they end with the script, however that ends. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGTERM")));

/** A daemon with directories of its own, which listens on the same port however often it is started. */
export class Daemon {
    static async start(more = "") {
        const daemon = new Daemon();
        daemon.dir = fs.mkdtempSync(path.join(os.tmpdir(), "hxe-dashboard-"));
        // Programs run as nobody, who must come to what is in it.
        fs.chmodSync(daemon.dir, 0o755);
        daemon.port = await freePort();
        daemon.url = `http://127.0.0.1:${daemon.port}/`;
        fs.mkdirSync(path.join(daemon.dir, "programs.d"));
        daemon.config = path.join(daemon.dir, "hxe.toml");
        const at = (name) => JSON.stringify(path.join(daemon.dir, name));
        const text = `[api]\nlisten = "127.0.0.1:${daemon.port}"\npassword = "${PASSWORD}"\n${more}\n[storage]\nstate_dir = ${at("state")}\n`
            + `run_dir = ${at("run")}\nlog_dir = ${at("log")}\n[programs]\ninclude = ${at("programs.d/*.toml")}\n`;
        fs.writeFileSync(daemon.config, text, { mode: 0o600 });
        await daemon.begin();
        return daemon;
    }

    async begin() {
        this.log = fs.openSync(path.join(this.dir, "hxe.out"), "a");
        this.child = spawn(process.env.HXE, ["daemon", "--config", this.config], { stdio: ["ignore", this.log, this.log] });
        running.add(this.child);
        this.ended = new Promise((resolve) => this.child.on("exit", resolve)).then(() => running.delete(this.child));
        await until("the daemon serves", () => this.call("GET", "/daemon").catch(() => null));
    }

    /** As `kill` does: all programs, then itself. */
    async end() {
        this.child.kill("SIGTERM");
        await this.ended;
        fs.closeSync(this.log);
    }

    async remove() {
        if (this.child.exitCode === null && this.child.signalCode === null) {
            await this.end();
        }
        fs.rmSync(this.dir, { recursive: true, force: true });
    }

    /** The process that serves dies; its guardian starts another. */
    async killServer() {
        const { server_pid: pid } = await this.call("GET", "/daemon");
        process.kill(pid, "SIGKILL");
    }

    /** A request over the socket, which no rate limit counts; made again while the daemon starts. */
    async call(method, where, body) {
        const { status, answer } = await until(`${method} ${where}`, async () => {
            const given = await this.#request(method, where, body);
            return given.status === 503 ? null : given;
        });
        assert.ok(status < 300, `${method} ${where}: ${answer}`);
        return JSON.parse(answer);
    }

    #request(method, where, body) {
        return new Promise((resolve, reject) => {
            const socketPath = path.join(this.dir, "run", "hxe.sock");
            const text = body === undefined ? "" : JSON.stringify(body);
            const headers = { "Content-Length": Buffer.byteLength(text) };
            const request = http.request({ socketPath, method, path: `/api${where}`, headers }, (response) => {
                let answer = "";
                response.on("data", (part) => (answer += part));
                response.on("end", () => resolve({ status: response.statusCode, answer }));
                response.on("error", reject);
            });
            request.on("error", reject);
            request.end(text);
        });
    }

    /** Creates a program, and starts it if it is to. */
    async create(definition, starts = true) {
        const { id } = await this.call("POST", "/program", definition);
        if (starts) {
            await this.call("POST", `/program/${id}/start`);
        }
        return id;
    }

    output() {
        return fs.readFileSync(path.join(this.dir, "hxe.out"), "utf8");
    }
}

/** What Chromium says of answers and connections that tests bring about. All else in its console is a mistake. */
const EXPECTED = [
    /^Failed to load resource: (the server responded with a status of (400|401|404|409|429) |net::ERR_\w+)/,
    /^WebSocket connection to '.*' failed: /,
];

/** A browser with nothing in it that was there before. */
export class Browser {
    static async open(url, { width, height = 740, scheme = "light", reducedMotion } = {}) {
        const browser = new Browser();
        browser.dir = fs.mkdtempSync(path.join(os.tmpdir(), "hxe-chromium-"));
        browser.width = width;
        browser.mistakes = [];
        browser.refusals = 0;
        browser.context = await chromium.launchPersistentContext(browser.dir, {
            executablePath: "/usr/bin/chromium",
            headless: true,
            args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
            viewport: { width, height },
            hasTouch: width < 600,
            colorScheme: scheme,
            reducedMotion,
            timeout: PATIENCE,
        });
        browser.context.setDefaultTimeout(PATIENCE);
        const page = browser.context.pages()[0];
        browser.page = page;
        page.on("console", (message) => {
            const text = message.text();
            if (["error", "warning"].includes(message.type()) && !EXPECTED.some((expected) => expected.test(text))) {
                browser.mistakes.push(text);
            }
        });
        page.on("pageerror", (error) => browser.mistakes.push(error.stack));
        page.on("response", (response) => (browser.refusals += response.status() === 429 ? 1 : 0));
        await page.goto(url);
        return browser;
    }

    async logIn(password = PASSWORD) {
        await this.page.getByLabel("Password").fill(password);
        await this.page.getByRole("button", { name: "Log in" }).click();
    }

    /** Nothing was wrong in this view: no message of the browser, nothing beside the screen, nothing that axe finds. */
    async check(view) {
        const { page } = this;
        const [needed, given] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(needed <= given, `${view}: ${needed} pixels wide on ${given}`);
        await page.evaluate(`${AXE};0`);
        const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
        const found = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`).join("\n")}`);
        assert.deepEqual(found, [], `${view}: axe`);
        this.blameless(view);
    }

    blameless(view) {
        assert.deepEqual(this.mistakes, [], `${view}: console`);
    }

    async close() {
        await this.context.close();
        fs.rmSync(this.dir, { recursive: true, force: true });
    }
}
