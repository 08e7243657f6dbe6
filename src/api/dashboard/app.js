document.title = location.host;
