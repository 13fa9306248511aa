/* Search, as nearfar has it. Chromium runs no worker of a page that is opened as a file. So that search works there too, a hidden frame stands in for it. */
const asked = (message) => {
  // "--micro-batch" is the name of a flag; to the index a dash in front says that a word must not be there.
  return typeof message.data === "string" ? { ...message, data: message.data.replace(/(^|\s)-+/g, "$1") } : message;
};

if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow, outside = this;
      inside.document.open();
      inside.document.write("<!doctype html><html><body></body></html>");
      inside.document.close();
      inside.postMessage = (data) => {
        outside.dispatchEvent(new MessageEvent("message", { data }));
        if (outside.onmessage) outside.onmessage({ data });
      };
      this.ready = new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        script.onload = done;
        script.onerror = () => failed(new Error(`${url} could not be loaded`));
        script.src = url;
        inside.document.body.appendChild(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: asked(data) })));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
} else {
  window.Worker = class extends Worker {
    postMessage(message) {
      super.postMessage(asked(message));
    }
  };
}
