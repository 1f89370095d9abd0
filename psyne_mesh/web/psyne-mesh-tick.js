var e;self.onmessage=({data:s})=>{clearTimeout(e),e=setTimeout(()=>self.postMessage(0),s)};
